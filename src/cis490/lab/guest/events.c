/*
 * Says which processes start, run another program and end, one line of JSON each, as the kernel
 * tells it through its netlink connector: what lives for a millisecond is seen too.
 *
 *   {"event":"snapshot"|"start"|"exec"|"exit","pid":7,"ppid":1,"cmdline":"sh /run/j/5eac1358"}
 *
 * A "start" is a fork, and its command line the parent's; "exec" has the new one. "snapshot" lists
 * what already runs, at the beginning and after events were lost. Threads are not processes, and
 * the kernel's own are left out. Compile with: cc -O2 -static -o events events.c
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIDS = 32768, LONGEST = 240, KTHREADD = 2 };

static struct {
    int parent; /* 0: no such process */
    char *cmdline;
} known[PIDS];

static void fail(const char *what)
{
    fprintf(stderr, "events: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void forget(int pid)
{
    free(known[pid].cmdline);
    known[pid].cmdline = NULL;
    known[pid].parent = 0;
}

static void know(int pid, int parent, const char *cmdline)
{
    char *copy = strdup(cmdline);
    if (!copy)
        fail("memory");
    forget(pid);
    known[pid].parent = parent;
    known[pid].cmdline = copy;
}

static int within(int pid)
{
    return pid > 0 && pid < PIDS;
}

/* Writes the line at once: a reader on the other side of the port sees whole lines only. */
static void say(const char *event, int pid)
{
    static char line[6 * LONGEST + 128];
    const unsigned char *from = (const unsigned char *)known[pid].cmdline;
    char *to = line;

    to += sprintf(to, "{\"event\":\"%s\",\"pid\":%d,\"ppid\":%d,\"cmdline\":\"", event, pid,
                  known[pid].parent);
    for (; *from; from++) {
        if (*from < 32 || *from > 126)
            to += sprintf(to, "\\u%04x", *from);
        else if (*from == '"' || *from == '\\')
            to += sprintf(to, "\\%c", *from);
        else
            *to++ = *from;
    }
    to += sprintf(to, "\"}\n");
    for (const char *rest = line; rest < to;) {
        ssize_t written = write(1, rest, to - rest);
        if (written < 0 && errno != EINTR)
            fail("write");
        rest += written > 0 ? written : 0;
    }
}

static ssize_t read_file(int pid, const char *name, char *into, size_t size)
{
    char path[64];
    int file;
    ssize_t n;

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    n = read(file, into, size - 1);
    close(file);
    into[n > 0 ? n : 0] = 0;
    return n;
}

/* Whether the process has a command line; the kernel's own threads, and the dead, have none. */
static int read_cmdline(int pid, char into[LONGEST])
{
    ssize_t n = read_file(pid, "cmdline", into, LONGEST);

    while (n > 0 && !into[n - 1])
        n--;
    if (n <= 0)
        return 0;
    for (ssize_t i = 0; i < n; i++)
        if (!into[i])
            into[i] = ' ';
    into[n] = 0;
    return 1;
}

static void snapshot(void)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    char cmdline[LONGEST], stat[512];

    if (!proc)
        fail("/proc");
    for (int pid = 1; pid < PIDS; pid++)
        forget(pid);
    while ((entry = readdir(proc))) {
        int pid = atoi(entry->d_name), parent = 0;
        char *name_end;
        if (!within(pid) || read_file(pid, "stat", stat, sizeof stat) <= 0)
            continue;
        name_end = strrchr(stat, ')');
        if (!name_end || sscanf(name_end, ") %*c %d", &parent) != 1 || !read_cmdline(pid, cmdline))
            continue;
        know(pid, parent, cmdline);
        say("snapshot", pid);
    }
    closedir(proc);
}

static void handle(const struct proc_event *event)
{
    char cmdline[LONGEST];
    int pid, parent;

    switch (event->what) {
    case PROC_EVENT_FORK:
        pid = event->event_data.fork.child_tgid;
        parent = event->event_data.fork.parent_tgid;
        if (event->event_data.fork.child_pid != pid || !within(pid) || parent == KTHREADD)
            return;
        know(pid, parent, within(parent) && known[parent].cmdline ? known[parent].cmdline : "");
        say("start", pid);
        return;
    case PROC_EVENT_EXEC:
        pid = event->event_data.exec.process_tgid;
        if (!within(pid))
            return;
        if (read_cmdline(pid, cmdline))
            know(pid, known[pid].parent, cmdline);
        else if (!known[pid].cmdline)
            return;
        say("exec", pid);
        return;
    case PROC_EVENT_EXIT:
        pid = event->event_data.exit.process_tgid;
        if (event->event_data.exit.process_pid != pid || !within(pid) || !known[pid].cmdline)
            return;
        say("exit", pid);
        forget(pid);
        return;
    default:
        return;
    }
}

static int subscribe(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
    struct {
        struct nlmsghdr head;
        struct cn_msg message;
        enum proc_cn_mcast_op what;
    } __attribute__((packed, aligned(NLMSG_ALIGNTO))) ask = {
        .head = {.nlmsg_len = sizeof ask, .nlmsg_type = NLMSG_DONE},
        .message = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof ask.what},
        .what = PROC_CN_MCAST_LISTEN,
    };
    int room = 4 << 20;
    int netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);

    if (netlink < 0 || bind(netlink, (struct sockaddr *)&address, sizeof address) < 0)
        fail("netlink");
    setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (send(netlink, &ask, sizeof ask, 0) < 0)
        fail("netlink");
    return netlink;
}

int main(void)
{
    /* Above all else, so that a program's command line is read before it has run to its end. */
    struct sched_param first = {.sched_priority = 1};
    char buffer[8192] __attribute__((aligned(NLMSG_ALIGNTO)));
    int netlink = subscribe();

    sched_setscheduler(0, SCHED_FIFO, &first);
    snapshot();
    for (;;) {
        ssize_t left = recv(netlink, buffer, sizeof buffer, 0);
        if (left < 0 && errno == ENOBUFS)
            snapshot();
        else if (left < 0 && errno != EINTR)
            fail("netlink");
        for (struct nlmsghdr *head = (struct nlmsghdr *)buffer; left > 0 && NLMSG_OK(head, left);
             head = NLMSG_NEXT(head, left)) {
            struct cn_msg *message = NLMSG_DATA(head);
            if (message->id.idx == CN_IDX_PROC && message->id.val == CN_VAL_PROC)
                handle((struct proc_event *)message->data);
        }
    }
}
