# The guest's own view: for each line of input, one line of JSON with twelve numbers.
# Counters count since boot: cpu_* in ticks of 10 ms, the rest in events or bytes.

function number_of(file, key, place,    line, parts) {
    # The number at `place` (from 1, the key itself is 1) in the line that begins with `key`.
    while ((getline line < file) > 0)
        if (index(line, key) == 1) {
            split(line, parts)
            close(file)
            return parts[place] + 0
        }
    close(file)
    return 0
}

{
    while ((getline line < "/proc/stat") > 0) {
        n = split(line, part)
        if (part[1] == "cpu") { user = part[2] + part[3]; system_ = part[4]; iowait = part[6] }
        else stat[part[1]] = part[2]
    }
    close("/proc/stat")
    while ((getline line < "/proc/meminfo") > 0) {
        split(line, part)
        memory[part[1]] = part[2]
        if (part[1] == "Dirty:") break
    }
    close("/proc/meminfo")
    sent = 0
    while ((getline line < "/proc/net/dev") > 0)
        if (sub(/^ *eth0: */, "", line)) { split(line, part); sent = part[9] }
    close("/proc/net/dev")
    opens = 0
    while ((getline line < "/proc/net/snmp") > 0)
        if (line ~ /^Tcp: [0-9]/) { split(line, part); opens = part[6] }
    close("/proc/net/snmp")
    faults = number_of("/proc/vmstat", "pgfault ", 2)
    printf "{\"cpu_user\":%d,\"cpu_sys\":%d,\"cpu_iowait\":%d,\"ctxt\":%.0f,\"intr\":%.0f,", \
        user, system_, iowait, stat["ctxt"], stat["intr"]
    printf "\"forks\":%.0f,\"procs_running\":%d,\"mem_available_kb\":%d,\"mem_dirty_kb\":%d,", \
        stat["processes"], stat["procs_running"], memory["MemAvailable:"], memory["Dirty:"]
    printf "\"pgfault\":%.0f,\"net_tx_bytes\":%.0f,\"tcp_active_opens\":%.0f}\n", \
        faults, sent, opens
    fflush()
}
