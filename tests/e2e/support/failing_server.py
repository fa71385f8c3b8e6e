#!/usr/bin/python3
"""Says what it is told to say and never serves: for starts that fail. Stands in for llama-server or vllm by its name.

Its arguments are those of the program whose name it bears, and mean nothing to it. What it does is in its environment:
SAY is a file whose text it writes, THEN is "live" (says no more and stays), or an exit code.
"""
import os
import sys
import time

if "--help" in sys.argv or "--version" in sys.argv:
    print("a stand-in")
    sys.exit(0)
with open(os.environ["SAY"]) as words:
    sys.stderr.write(words.read())
    sys.stderr.flush()
if os.environ["THEN"] != "live":
    sys.exit(int(os.environ["THEN"]))
while True:
    time.sleep(3600)
