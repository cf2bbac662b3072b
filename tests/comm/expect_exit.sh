#!/bin/sh
# expect_exit.sh CODE SECONDS COMMAND...: passes when the command ends with CODE within SECONDS.
want=$1
limit=$2
shift 2
timeout -k 1 "$limit" "$@"
got=$?
echo "exit code $got, expected $want"
test "$got" -eq "$want"
