#!/bin/sh
# One piece of work every $INTERVAL_SECONDS, until SIGTERM.
stop=
trap 'stop=yes' TERM INT

n=0
echo "worker: started"
while [ -z "$stop" ]; do
    n=$((n + 1))
    echo "worker: piece $n done"
    # In the background: a signal ends the wait at once, but would have to outlast a sleep in front.
    sleep "$INTERVAL_SECONDS" &
    wait $!
done
echo "worker: stopped after $n pieces"
