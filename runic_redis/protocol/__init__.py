"""What drivers carry: commands in batches, when they are sent and retried, scripts, and what replies mean.

`effects` defines what passes between an operation and a driver, `queue` which calls travel together and when they are
retried, `refusals` what error replies mean, `confirmation` what makes a write durable. No socket, thread or clock is
here.
"""
