"""Runs command lines one after the other, each in its own process, for a test that runs hundreds of them.

Reads a JSON object a line from standard input: `program` (`pywg`, which is imported already and only forked,
or another), `arguments`, `input` and `environment`; answers `status`, `output` and `errors` on one line.
"""

import json
import os
import subprocess
import sys
import traceback

from pywg.cli import pywg

for name in pywg.COMMANDS:
    pywg.main.get_command(None, name)


def run(program: str, arguments: list[str], input: str, environment: dict[str, str]) -> dict:
    if program == "pywg":
        return run_pywg(arguments, input, environment)
    done = subprocess.run(
        [program, *arguments],
        input=os.fsencode(input),
        capture_output=True,
        env={**os.environ, **environment},
    )
    output, errors = os.fsdecode(done.stdout), os.fsdecode(done.stderr)
    return {"status": done.returncode, "output": output, "errors": errors}


def run_pywg(arguments: list[str], input: str, environment: dict[str, str]) -> dict:
    source, sink = os.pipe()
    os.write(sink, os.fsencode(input))  # fits into the pipe
    os.close(sink)
    streams = [os.memfd_create(name) for name in ("output", "errors")]
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            for number, stream in enumerate([source, *streams]):
                os.dup2(stream, number)
            os.environ.update(environment)
            sys.stdin = os.fdopen(0, encoding="utf-8")  # the one of before has read ahead
            pywg.main(arguments, prog_name="pywg")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
            status = 99
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(source)
    _, result = os.waitpid(pid, 0)
    texts = []
    for stream in streams:
        os.lseek(stream, 0, os.SEEK_SET)
        with os.fdopen(stream, "rb") as file:
            texts.append(os.fsdecode(file.read()))
    return {"status": os.waitstatus_to_exitcode(result), "output": texts[0], "errors": texts[1]}


for line in sys.stdin:
    print(json.dumps(run(**json.loads(line))), flush=True)
