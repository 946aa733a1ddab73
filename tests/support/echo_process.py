"""A child process for tests: repeats each request, except that it sleeps or ends if the request says so."""

from __future__ import annotations

import json
import sys
import time

if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("end"):
            sys.exit(1)
        time.sleep(request.get("sleep_s", 0))
        sys.stdout.write(line)
        sys.stdout.flush()
