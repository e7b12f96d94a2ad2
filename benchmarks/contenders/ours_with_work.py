"""This store's jobs with `async_work`, which calls a handler for each. It takes part in the cases of jobs alone."""

from .ours import Ours


class OursWithWork(Ours):
    name = "runic_redis, work"
    about = "the same jobs by async_work: 64 tasks, a session and a handler for each job"
    usual = False
    job_arguments = ("work",)

    def namespace_name(self) -> str:
        return f"{self.place.server.token}-work"


CONTENDERS = [OursWithWork]
