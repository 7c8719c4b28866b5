"""Training runs in separate processes, forked in milliseconds from a server that has imported torch and mars."""
import multiprocessing, os, resource, signal
from pathlib import Path

CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['torch._dynamo', 'mars.baselines.aar', 'mars.pipeline', 'mars.train', 'pytest'])

class Run:
    "A function in a process; its output goes to a file."
    def __init__(self, folder, function, *args, env=(), file_limit=None): # file_limit: bytes that a file may have, as on a full disk
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.output = Path(folder)/'output.txt'
        self.process = CONTEXT.Process(target=_child, args=(str(self.output), dict(env), file_limit, function, args))
        self.process.start()

    @property
    def alive(self): return self.process.is_alive()
    @property
    def status(self): return self.process.exitcode
    @property
    def text(self): return self.output.read_text() if self.output.exists() else ''

    def wait(self, seconds=300):
        "Wait for the end -> (exit status, output)."
        self.process.join(seconds)
        assert not self.alive, self.text
        return self.status, self.text

    def send(self, number): # a signal
        os.kill(self.process.pid, number)
        return self.wait()[0]

def _child(output, env, file_limit, function, args):
    os.environ.update(env)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for fd in (1, 2): os.dup2(file, fd)
    if file_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    import torch
    torch.set_num_threads(1)
    function(*args)
