#!/usr/bin/env bash
# Makes the captures of this folder anew: make.sh FOLDER. Needs root, iproute2, nginx, curl, Python 3, tcpdump
# and editcap. Two network namespaces, a veth pair between them, no way out.
set -euo pipefail
out=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
client=golden-client server=golden-server
work=$(mktemp -d)
pids=()

end() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    ip netns del $client 2>/dev/null || true
    ip netns del $server 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT

in_client() { ip netns exec $client "$@"; }
in_server() { ip netns exec $server "$@"; }

topology() {
    ip netns add $client
    ip netns add $server
    ip -n $client link add eth0 type veth peer name eth0 netns $server
    ip -n $client addr add 10.77.0.1/24 dev eth0
    ip -n $server addr add 10.77.0.2/24 dev eth0
    ip -n $client addr add fd77::1/64 dev eth0 nodad
    ip -n $server addr add fd77::2/64 dev eth0 nodad
    for space in $client $server; do
        ip -n $space link set lo up
        ip -n $space link set eth0 up
    done
}

servers() {
    mkdir -p "$work/www" "$work/temp"
    chmod -R go+rX "$work"
    echo hello > "$work/www/index.txt"
    head -c 3000 /dev/zero | tr '\0' x > "$work/www/long.txt"
    echo 'included: <!--# include virtual="/index.txt" -->' > "$work/www/chunked.txt"
    # Not by a function: a job's number is to be the program's.
    ip netns exec $server nginx -p "$work" -c "$here/nginx.conf" 2>/dev/null & pids+=($!)
    ip netns exec $server python3 "$here/ends.py" serve & pids+=($!)
    sleep 1
}

# record FILE OPTIONS-OF-TCPDUMP... -- COMMAND...: what the server's interface sees of a command in the client's.
record() {
    local file=$1 options=()
    shift
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    ip netns exec $server tcpdump -q -U --immediate-mode -w "$work/capture" "${options[@]}" tcp 2>/dev/null &
    local tcpdump=$!
    sleep 0.5
    "$@" > /dev/null || true
    sleep 0.5
    kill $tcpdump
    wait $tcpdump || true
    mv "$work/capture" "$out/$file"
}

web() { in_client curl -s "$@"; }
end_of() { in_client python3 "$here/ends.py" "$1" 10.77.0.2; }
url=http://10.77.0.2

keep_alive() {
    local next=(-o /dev/null --next -s)
    web "$url/index.txt" "${next[@]}" -I "$url/index.txt" "${next[@]}" -d a=1 "$url/echo" \
        "${next[@]}" -X PUT -d whole "$url/echo" "${next[@]}" -X DELETE "$url/none" \
        "${next[@]}" -X OPTIONS "$url/echo" "${next[@]}" -X PATCH -d part "$url/echo" \
        "${next[@]}" -X PROPFIND "$url/echo" "${next[@]}" "$url/moved?user=1&sig=secret" \
        "${next[@]}" -H 'If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT' "$url/index.txt" \
        "${next[@]}" "$url/fails"
}

bodies() {
    web -H 'Transfer-Encoding: chunked' -d chunked "$url/echo"
    web -H 'Expect: 100-continue' -d expected "$url/upload"
    web "$url/chunked.txt"
    head -c 70000 /dev/zero | web -H 'Expect:' --data-binary @- "$url/upload"
    in_client curl -s "$url:8080/trailer"
}

contexts() {
    local id=4bf92f3577b34da6a3ce929d0e0e4736 span=00f067aa0ba902b7 at='http://[fd77::2]'
    web -H "traceparent: 00-$id-$span-01" -H 'tracestate: vendor=1' "$at/index.txt"
    web -H "b3: $id-$span-1" "$at/index.txt"
    web -H "X-B3-TraceId: $id" -H "X-B3-SpanId: $span" -H 'X-Request-Id: r-1' "$at/index.txt"
    web -H "uber-trace-id: $id:$span:0:1" -A '' "$at/index.txt"
    web -H 'traceparent: 00-nonsense' -H 'Host: user:word@shop' "$at/index.txt"
}

both_ways() { in_server curl -s http://127.0.0.1/index.txt; web "$url/index.txt"; }

topology
servers
record keep-alive.pcap -i eth0 -- keep_alive
record bodies.pcap -i eth0 -- bodies
record contexts.pcap -i eth0 --time-stamp-precision=nano -- contexts
record pipelined.pcap -i eth0 -- end_of pipelined
record resets.pcap -i eth0 -- end_of resets
record closes.pcap -i eth0 -- end_of closes
record switches.pcap -i eth0 -- end_of switches
record interim.pcap -i eth0 -- end_of interim
record http10.pcap -i eth0 -- end_of old
record tcp.pcap -i eth0 -- end_of redis
record any.pcap -i any -- both_ways
record cut.pcap -i eth0 -s 500 -- web "$url/long.txt" -o /dev/null --next -s "$url/index.txt"
record client.pcap -i eth0 --time-stamp-precision=nano -- end_of client
editcap -F pcapng "$out/client.pcap" "$out/client.pcapng"
rm "$out/client.pcap"
