/*
 *            start ----> connected ----> ready
 *              ^             |             |
 *              |             v             v
 *   wait <---- dead <--------+-------------+      too often: over
 *
 * A process is dead when it was waited for; its socket may close before that or behind it. mpirun
 * ends its ranks when it is asked to end, so it is asked before it is killed.
 */
#define _GNU_SOURCE /* struct ucred */
#include "launch/serve/supervisor.h"

#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    NAME_BYTES = 64,
    MAX_RESTARTS_KEPT = 64,
    LOOK_MS = 500,   /* how often silence is looked for */
    GRACE_MS = 3000, /* from being asked to end to being killed */
    FIRST_WAIT_MS = 100,
    LONGEST_WAIT_MS = 10000,
    MORE_ARGUMENTS = 12, /* of the launcher and for the socket */
    NUMBER_BYTES = 16,
    SELF_BYTES = 4096,
    WHY_BYTES = 128,
    LAST_PERMANENT_CODE = 5, /* usage, checkpoint, capacity, hardware: docs/operations.md */
    FIRST_PERMANENT_CODE = 2,
    ANY_SIGNAL = 128,
    NO_PROGRAM = 127,
};

struct tsr_supervisor {
    tsr_supervisor_args args;
    char name[NAME_BYTES]; /* of the socket */
    int listener;
    struct event *connecting;
    struct event *children;
    struct event *look; /* for silence, and for an engine that was asked to end and does not */
    struct event *again;
    pid_t process;                      /* leader of its group; 0: none */
    int64_t died_ms[MAX_RESTARTS_KEPT]; /* the last ones, around the end */
    int32_t deaths;
    int32_t in_a_row; /* since an engine was ready */
    int64_t asked_ms; /* when it was asked to end; 0: it was not */
    bool was_ready;   /* the last engine */
    bool was_ever_ready;
    bool is_let_go;
};

static socklen_t address_of(const char *name, struct sockaddr_un *ret_address)
{
    const size_t count = strlen(name);

    /* abstract: no file, and gone with the last socket */
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_address->sun_path + 1, name, count);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + count);
}

tsr_status tsr_supervisor_connect(const char *name, int *ret_fd)
{
    struct sockaddr_un address;

    if (strlen(name) >= NAME_BYTES) {
        tsr_log(TSR_LOG_ERROR, "--engine-socket: too long");
        return TSR_ERR_ARG;
    }
    const socklen_t bytes = address_of(name, &address);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, bytes) == 0) {
        *ret_fd = fd;
        return TSR_OK;
    }
    tsr_log(TSR_LOG_ERROR,
            "--engine-socket %s: no gateway listens there: %s; rank 0 must run on its host", name,
            strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    return TSR_ERR_PEER;
}

static tsr_status listen_for_engines(tsr_supervisor *s)
{
    struct sockaddr_un address;
    uint64_t word = 0;

    if (getrandom(&word, sizeof(word), 0) != (ssize_t)sizeof(word))
        word = (uint64_t)tsr_clock_ns();
    (void)snprintf(s->name, sizeof(s->name), "tessera-%d-%016llx", (int)getpid(),
                   (unsigned long long)word);
    const socklen_t bytes = address_of(s->name, &address);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener >= 0 && bind(s->listener, (const struct sockaddr *)&address, bytes) == 0 &&
        listen(s->listener, 1) == 0)
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "cannot listen for the engine: %s", strerror(errno));
    return tsr_status_of_error(errno, TSR_ERR_BIND);
}

/* The engine's command: this program's own, and where to find the gateway. exec only reads what the
 * pointers lead to. */
static const char **command_of(const tsr_supervisor *s, const char *self, const char *ranks)
{
    const char *const launcher[] = {"mpirun", "-n", ranks, "--bind-to", "none"};
    size_t count = 0;
    size_t at = 0;

    while (s->args.arguments[count] != NULL)
        count++;
    const char **command = calloc(count + MORE_ARGUMENTS, sizeof(char *));
    if (command == NULL)
        return NULL;
    if (s->args.ranks > 0) {
        for (; at < sizeof(launcher) / sizeof(launcher[0]); at++)
            command[at] = launcher[at];
        if (s->args.hostfile != NULL) {
            command[at++] = "--hostfile";
            command[at++] = s->args.hostfile;
        }
    }
    command[at++] = self;
    for (size_t i = 1; i < count; i++)
        command[at++] = s->args.arguments[i];
    command[at++] = "--engine-socket";
    command[at] = s->name;
    return command;
}

/*
 * What mpirun wants to hear to start ranks for whoever runs this, root included, on a machine of any
 * number of cores, in a container or not; Open MPI 4 and 5. What the user has set stays.
 */
static void tell_launcher(void)
{
    static const char *const words[][2] = {
        {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
        {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
        {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
        {"PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"},
        {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
        {"HWLOC_COMPONENTS", "-gl"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        (void)setenv(words[i][0], words[i][1], 0);
}

/* In the child. Everything that it is not to have is closed on exec. */
_Noreturn static void become(const char **command)
{
    char *const *words;
    sigset_t none;

    /* its group is not the terminal's: mpirun would be stopped where it reads for rank 0 */
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing >= 0)
        (void)dup2(nothing, STDIN_FILENO);
    (void)setpgid(0, 0);
    tell_launcher();
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    memcpy(&words, &command, sizeof(words));
    (void)execvp(command[0], words);
    (void)fprintf(stderr, "tessera: error: cannot start %s: %s\n", command[0], strerror(errno));
    _exit(NO_PROGRAM);
}

static pid_t start_process(tsr_supervisor *s)
{
    char ranks[NUMBER_BYTES];
    char self[SELF_BYTES];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        return -1;

    self[n] = '\0';
    (void)snprintf(ranks, sizeof(ranks), "%d", s->args.ranks);
    const char **command = command_of(s, self, ranks);
    if (command == NULL)
        return -1;
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        become(command);
    free(command);
    return child;
}

static void start(tsr_supervisor *s)
{
    s->asked_ms = 0;
    s->was_ready = false;
    const pid_t child = start_process(s);
    if (child > 0) {
        (void)setpgid(child, child); /* whichever of the two comes first */
        s->process = child;
        return;
    }
    s->args.over(s->args.context, tsr_status_exit_code(TSR_ERR_MEMORY),
                 "cannot start the engine: out of memory or processes");
}

static void on_again(evutil_socket_t fd, short what, void *context)
{
    tsr_supervisor *s = context;

    (void)fd;
    (void)what;
    if (!s->is_let_go && s->process == 0)
        start(s);
}

/* Deaths within the last while, this one included. */
static int32_t count_death(tsr_supervisor *s)
{
    const int64_t now_ms = tsr_clock_ms();
    int32_t recent = 0;

    s->died_ms[s->deaths++ % MAX_RESTARTS_KEPT] = now_ms;
    const int32_t kept = s->deaths < MAX_RESTARTS_KEPT ? s->deaths : MAX_RESTARTS_KEPT;
    for (int32_t i = 0; i < kept; i++)
        recent += now_ms - s->died_ms[i] < s->args.restart_ms;
    return recent;
}

static void start_later(tsr_supervisor *s)
{
    int64_t wait_ms = 0;

    for (int32_t i = 1; i < s->in_a_row && wait_ms < LONGEST_WAIT_MS; i++)
        wait_ms = wait_ms > 0 ? wait_ms * 2 : FIRST_WAIT_MS;
    const struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
    (void)evtimer_add(s->again, &wait);
}

static void take_death(tsr_supervisor *s, int code)
{
    char why[WHY_BYTES];

    (void)snprintf(why, sizeof(why), "the engine has ended with exit code %d", code);
    if (s->is_let_go) {
        s->args.over(s->args.context, 0, why);
        return;
    }
    s->in_a_row = s->was_ready ? 1 : s->in_a_row + 1;
    const int32_t recent = count_death(s);
    const bool permanent =
        !s->was_ever_ready && code >= FIRST_PERMANENT_CODE && code <= LAST_PERMANENT_CODE;
    if (permanent || recent > s->args.restarts) {
        s->args.over(s->args.context, code != 0 ? code : tsr_status_exit_code(TSR_ERR_INTERNAL),
                     why);
        return;
    }
    tsr_log(TSR_LOG_WARN, "%s: starting it again (%d of %d within %d minutes)", why, recent,
            s->args.restarts, s->args.restart_ms / 60000);
    start_later(s);
}

static void on_child(evutil_socket_t fd, short what, void *context)
{
    tsr_supervisor *s = context;
    int status = 0;

    (void)fd;
    (void)what;
    if (s->process == 0 || waitpid(s->process, &status, WNOHANG) != s->process)
        return;
    /* ranks that have outlived their launcher */
    (void)kill(-s->process, SIGKILL);
    s->process = 0;
    tsr_engine_link_detach(s->args.link, "the engine has ended");
    take_death(s, WIFEXITED(status) ? WEXITSTATUS(status) : ANY_SIGNAL + WTERMSIG(status));
}

/* The socket is closed: the process is to follow. */
static void on_gone(void *context, bool was_ready)
{
    tsr_supervisor *s = context;

    s->was_ready = was_ready;
    s->was_ever_ready = s->was_ever_ready || was_ready;
    if (s->process != 0 && s->asked_ms == 0)
        s->asked_ms = tsr_clock_ms();
}

static void on_look(evutil_socket_t fd, short what, void *context)
{
    tsr_supervisor *s = context;
    const int64_t now_ms = tsr_clock_ms();
    const int64_t heard_ms = tsr_engine_link_heard_ms(s->args.link);

    (void)fd;
    (void)what;
    if (s->process == 0)
        return;
    if (s->asked_ms != 0 && now_ms - s->asked_ms > GRACE_MS) {
        (void)kill(-s->process, SIGKILL);
        return;
    }
    if (tsr_engine_link_is_ready(s->args.link) && heard_ms != 0 &&
        now_ms - heard_ms > s->args.silence_ms) {
        tsr_log(TSR_LOG_ERROR, "the engine has said nothing for %d ms: it is ended",
                s->args.silence_ms);
        s->asked_ms = now_ms;
        (void)kill(-s->process, SIGTERM);
        (void)kill(-s->process, SIGCONT);
    }
}

static bool is_ours(int fd)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && peer.uid == geteuid();
}

static void on_connect(evutil_socket_t listener, short what, void *context)
{
    tsr_supervisor *s = context;
    const int fd = accept(listener, NULL, NULL);

    (void)what;
    if (fd < 0)
        return;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    /* anybody of this machine can name the socket; the engine is one, and this user's */
    const bool expected =
        s->process != 0 && is_ours(fd) && tsr_engine_link_heard_ms(s->args.link) == 0;
    if (!expected)
        (void)close(fd);
    else if (tsr_engine_link_attach(s->args.link, fd, on_gone, s) != TSR_OK)
        tsr_log(TSR_LOG_WARN, "an engine that has come cannot be taken: it will end");
}

static tsr_status add_events(tsr_supervisor *s)
{
    static const struct timeval often = {.tv_usec = LOOK_MS * 1000L};

    s->connecting = event_new(s->args.base, s->listener, EV_READ | EV_PERSIST, on_connect, s);
    s->children = evsignal_new(s->args.base, SIGCHLD, on_child, s);
    s->look = event_new(s->args.base, -1, EV_PERSIST, on_look, s);
    s->again = evtimer_new(s->args.base, on_again, s);
    const bool good = s->connecting != NULL && s->children != NULL && s->look != NULL &&
                      s->again != NULL && event_add(s->connecting, NULL) == 0 &&
                      event_add(s->children, NULL) == 0 && event_add(s->look, &often) == 0;
    return good ? TSR_OK : TSR_ERR_MEMORY;
}

tsr_status tsr_supervisor_open(const tsr_supervisor_args *args, tsr_supervisor **ret_supervisor)
{
    tsr_supervisor *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return TSR_ERR_MEMORY;
    s->args = *args;
    s->listener = -1;
    tsr_status st = listen_for_engines(s);
    if (st == TSR_OK)
        st = add_events(s);
    if (st != TSR_OK) {
        tsr_supervisor_close(s);
        return st;
    }
    start(s);
    *ret_supervisor = s;
    return TSR_OK;
}

void tsr_supervisor_let_go(tsr_supervisor *supervisor)
{
    supervisor->is_let_go = true;
}

static void free_event(struct event *event)
{
    if (event != NULL)
        event_free(event);
}

static bool has_ended_within(pid_t process, int32_t ms)
{
    const int64_t until_ms = tsr_clock_ms() + ms;
    const struct timespec turn = {.tv_nsec = 10000000};

    while (waitpid(process, NULL, WNOHANG) == 0) {
        if (tsr_clock_ms() > until_ms)
            return false;
        (void)nanosleep(&turn, NULL);
    }
    return true;
}

/* It was told to go; then it is asked, which gives mpirun the moment that it takes to end its ranks;
 * then it is killed. */
static void end_process(pid_t process, bool was_told)
{
    if (was_told && has_ended_within(process, GRACE_MS))
        return;
    (void)kill(-process, SIGTERM);
    if (has_ended_within(process, GRACE_MS))
        return;
    (void)kill(-process, SIGKILL);
    (void)waitpid(process, NULL, 0);
}

void tsr_supervisor_close(tsr_supervisor *s)
{
    if (s == NULL)
        return;
    free_event(s->connecting);
    free_event(s->children);
    free_event(s->look);
    free_event(s->again);
    if (s->listener >= 0)
        (void)close(s->listener);
    if (s->process > 0)
        end_process(s->process, s->is_let_go);
    free(s);
}
