"""What runs in a worker process. Installed as fabric.workers; started by fabric.crew, imported by no other part.

__main__    fork server, or one spawned worker
forkserver  forks workers that have the imports done, and tells the coordinator how they end
loop        receive a batch, have the host handle it, publish, commit, wait
host        the agents of this worker
outbox      what handlers send: it never waits
mailbox     agents whose on_message is a coroutine
ledger      how far each lane may be committed
context     what an agent may do while it handles a message
"""
