#!/bin/sh
# The first process of the agent's container: starts the agent, and starts it again when it ends without having been told
# to. The container goes on meanwhile, and with it the processes that hold the pods' listening sockets; were the agent the
# first process itself, its death would end them all.
#
# Again at once, and after growing pauses only when it keeps ending young. SIGTERM and SIGINT are passed on. Then, when the
# agent says that its settings are wrong (2), and when it has ended in order (0), this ends with the agent's status.
set -u

# Seconds before each start in a row, the last for all that follow; and how long it takes not to be young any more.
PAUSES='0 0.2 0.5 1 2 5'
YOUNG=10
SETTINGS_ARE_WRONG=2

here=$(dirname "$0")
agent=
pausing=
youth=
signal=
left=$PAUSES

pass_on() {
  signal=$1
  [ -z "$agent" ] || kill -s "$signal" "$agent" 2>/dev/null
  [ -z "$pausing" ] || kill "$pausing" 2>/dev/null
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT
# A child of ours says that the agent is not young any more: there is no other clock here.
trap 'youth=' USR1

# Waits for a child to its end, however often a signal comes between; its status is then in $status.
wait_for() {
  while :; do
    wait "$1"
    status=$?
    [ "$status" -gt 128 ] || return 0
    # It was ended by a signal, or we were interrupted by one.
    kill -0 "$1" 2>/dev/null || return 0
  done
}

# Takes the first of what is left of the pauses, and leaves the last.
next_pause() {
  # shellcheck disable=SC2086 # words on purpose
  set -- $left
  pause=$1
  [ $# -eq 1 ] || shift
  left=$*
}

while :; do
  (sleep "$YOUNG" && kill -s USR1 $$) &
  youth=$!
  node "$here/main.ts" &
  agent=$!
  # The signal that came before there was an agent.
  [ -z "$signal" ] || kill -s "$signal" "$agent" 2>/dev/null
  wait_for "$agent"
  agent=
  ended=$status
  # Only while it has not spoken is that number still its own.
  if [ -n "$youth" ]; then kill "$youth" 2>/dev/null; else left=$PAUSES; fi
  if [ -n "$signal" ] || [ "$ended" -eq 0 ] || [ "$ended" -eq "$SETTINGS_ARE_WRONG" ]; then
    exit "$ended"
  fi
  next_pause
  echo "culvert: the agent has ended with status $ended; it is started again in $pause s" >&2
  [ "$pause" != 0 ] || continue
  sleep "$pause" &
  pausing=$!
  wait_for "$pausing"
  pausing=
  [ -z "$signal" ] || exit "$ended"
done
