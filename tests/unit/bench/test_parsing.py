"""What other programs print, read from samples of their real output."""

import json
import os
import time

import pytest

from bench import ethr, iperf, procfs
from bench.measurements import ping_times
from bench.rig import MeasureError

ETHR_SERVER = """\
Ethr: Comprehensive Network Performance Measurement Tool (Version: UNKNOWN)
Listening on port 8888 for TCP & UDP
-----------------------------------------------------------
[RemoteAddress]  Proto   Bits/s   Conn/s    Pkt/s   Latency
[    192.0.2.1]    TCP     3.5G        0     --        --
[    192.0.2.1]    UDP   593.4M     --      54.1K      --
[    192.0.2.1]    UDP    75.5M     --       7.3K      --
[    192.0.2.1]    TCP        0     4.4K     --        --
[    192.0.2.1]    TCP        0      409     --    172.738us
"""
ETHR_LATENCY = """\
Running latency test: 1000, 1
-----------------------------------------------------------------------------------------
      Avg       Min       50%       90%       95%       99%     99.9%    99.99%       Max
172.688us  22.582us  96.430us 171.049us 255.857us   2.934ms   5.673ms   5.673ms   6.200ms
110.754us  23.002us  79.929us 176.178us 218.558us 524.748us   2.338ms   2.338ms   3.005ms
164.900us  39.323us  99.586us 232.113us 443.347us   1.726ms   3.098ms   3.098ms   3.994ms
Ethr done, duration: 2s.
"""


def test_cpu_time_is_read_after_a_name_with_spaces_and_brackets():
    fields = ["S", *["0"] * 10, "150", "50", *["7"] * 30]
    assert procfs.parse_cpu_seconds(f"42 (a) b) {' '.join(fields)}\n") == pytest.approx(
        200 / os.sysconf("SC_CLK_TCK")
    )


def test_memory_is_told_in_millions_of_bytes():
    assert procfs.parse_rss_mb("Name:\tx\nVmRSS:\t   1000 kB\nThreads:\t1\n") == pytest.approx(1.024)


def test_ports_count_as_listening_only_in_that_state():
    table = (
        "  sl  local_address rem_address   st tx_queue\n"
        "   0: 0100007F:1451 00000000:0000 0A 0:0\n"
        "   1: 0100007F:1452 0100007F:1451 01 0:0\n"
    )
    assert procfs.parse_listening(table) == {0x1451}


def test_what_arrived_of_udp_is_what_was_not_lost():
    total = {"bytes": 2297984, "seconds": 1.0, "packets": 71339, "lost_packets": 35433}
    received = iperf.received({"end": {"sum_received": total}})
    assert received == (2297984, 1.0, 35906, pytest.approx(0.4967, abs=1e-4))


def test_a_transfer_without_a_result_is_an_error_with_the_reason():
    with pytest.raises(MeasureError, match="unable to connect"):
        iperf.received({"end": {}, "error": "unable to connect"})


def test_iperf_may_print_warnings_around_its_report():
    report = {"end": {"sum_received": {"bytes": 1, "seconds": 1.0}}}
    assert iperf.parse(f"warning: a\n{json.dumps(report)}\niperf3: interrupted\n") == report


def test_what_is_no_report_of_iperf_is_an_error():
    with pytest.raises(MeasureError, match="no route"):
        iperf.parse("no route to host")


def test_pings_are_read_in_microseconds():
    text = (
        "64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.063 ms\n"
        "64 bytes from 10.77.0.2: icmp_seq=2 ttl=64 time=12 ms\n"
        "2 packets transmitted, 2 received, 0% packet loss, time 1ms\n"
    )
    assert ping_times(text) == [63, 12000]


def test_no_answered_ping_is_an_error():
    with pytest.raises(MeasureError, match="100% packet loss"):
        ping_times("5 packets transmitted, 0 received, 100% packet loss, time 50ms")


def test_ethrs_server_is_summed_over_all_its_lines():
    bits, _, packets = ethr.totals(ETHR_SERVER, "UDP", 1)
    assert (bits, packets) == (pytest.approx(668.9e6), pytest.approx(61.4e3))


def test_ethrs_connections_are_told_apart_from_its_dashes():
    assert ethr.totals(ETHR_SERVER, "TCP", 2)[1] == pytest.approx((4400 + 409) / 2)


def test_an_ethr_server_that_saw_nothing_is_an_error():
    with pytest.raises(MeasureError, match="counted nothing"):
        ethr.totals("Listening on port 8888 for TCP & UDP", "TCP", 1)


def test_ethrs_latency_is_the_median_of_its_lines_in_microseconds():
    found = ethr.latencies(ETHR_LATENCY)
    assert (found["p50"], found["p99"], found["max"]) == (96.430, 1726, 3994)


@pytest.mark.parametrize("text", ["3.4X", "", "fast"])
def test_what_is_no_number_of_ethr_is_an_error(text):
    with pytest.raises(MeasureError):
        ethr.number(text)


def test_a_process_of_its_own_clock_counts_what_it_used():
    before = procfs.cpu_nanoseconds(os.getpid())
    mine = time.process_time_ns()
    while time.process_time_ns() - mine < 2_000_000:
        pass
    assert 2_000_000 <= procfs.cpu_nanoseconds(os.getpid()) - before < 2_000_000_000
