"""The benchmark: this store and others, in turns, on the same events, the same server and the same durability.

- `cases` names the cases, and `turns` says what a turn of each case does.
- `measure` lets the contenders take turns, and `figures` has the statistics.
- `contenders/` has a file for each contender, and `reports/` a file for each kind of report.

It travels in the wheel, as `runic_redis.benchmarks`, because `runic-redis bench --url URL` is a verb for users who
install the wheel. Figures depend on the server, the network and the disk, so they matter on the machines where the
store is to run, and a checkout is rarely there. It stays outside of the package because no other module may use it.
"""
