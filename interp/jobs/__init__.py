"""Long work in a process of its own: queued, watched, stopped, resumed; it outlives whoever asked for it.

A job is a command of `interp.commands` and its arguments. It lives in a folder of `INTERP_HOME/data/jobs`, named by its
number, until it is removed:

    job.json        command, arguments, working folder: as submitted (a secret among the arguments stands there as it is)
    state.json      queued, running, done, failed or stopped; which process it is; exit code, the sentence of an error
    progress.json   how far it is, at most twice a second
    log.txt         what the command said, of every attempt
    result.json     the record that the command gave back

**The queue needs no daemon.** Whoever submits, resumes or ends a job starts the next ones, and whoever looks, lists or
waits does so too, in case the last one was killed; all under one lock, which the system lets go of when its holder dies.
Jobs run in the order in which they were submitted, as many at once as the machine has room for: one for every
CORES_A_JOB cores that this process may use, at least one (`INTERP_JOBS` says another number), each on its share of them.

**Who is alive.** A job that is said to run and whose process is gone is `lost` (killed, or the machine went down). A
process is known by its number, the moment it began and the machine's boot (`process.py`), so no other process that was
given the same number is taken for a job, nor stopped for it. A job's process has a session of its own and no pipe to its
parent; a stop that comes while it starts waits until it can be heard. `INTERP_HOME` belongs to one machine at a time, and
the system is a POSIX one.

**Full and read-only disks.** A job is submitted whole or not at all. Reading needs no lock and writes nothing. A job keeps
a few KiB by, so that it can say how it ended when the disk is full; where even that fails, it is `lost`.

**Resuming** calls the command again with the same arguments, under the same number; commands go on from what they kept.
A `restart` among them holds until the job has made progress: what lies there then is its own.

Source: written on psutil and files because no maintained library does this without a process that stays: huey, dramatiq,
rq, celery and localqueue need a worker that runs all the time (most a broker too), pueue and task-spooler are daemons of
their own that pip cannot bring, and submitit's local executor has no queue and keeps functions as pickles.
"""

from interp.jobs.queue import CORES_A_JOB, remove, resume, room, stop, submit
from interp.jobs.record import Job, State
from interp.jobs.watch import follow, job, jobs, last_lines, log_lines, wait
from interp.progress import Progress

__all__ = [
    "CORES_A_JOB",
    "Job",
    "Progress",
    "State",
    "follow",
    "job",
    "jobs",
    "last_lines",
    "log_lines",
    "remove",
    "resume",
    "room",
    "stop",
    "submit",
    "wait",
]
