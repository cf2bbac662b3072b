/* Handlers write words and make calls that handlers may make; everything else reads the words. */
#define _GNU_SOURCE /* ppoll */
#include "launch/job/signals.h"

#include "runtime/base/ending.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* mpirun kills a second after it has sent SIGTERM. */
enum { GRACE_US = 900000, WHO_BYTES = 24, LINE_BYTES = 80, ANY_SIGNAL = 128 };

static atomic_bool drain;
static char lines[3][LINE_BYTES]; /* of SIGHUP, SIGINT, SIGTERM */
static atomic_bool is_loud = true;
static atomic_bool has_to_keep;
static atomic_bool interrupted;
static sigset_t before_hold;
static atomic_int leaving; /* an exit code; 0: not leaving */

static void ask_to_drain(int number)
{
    (void)number;
    atomic_store(&drain, true);
}

static void note_interrupt(int number)
{
    (void)number;
    atomic_store(&interrupted, true);
}

/* In one piece, so that lines of several ranks stay whole. */
static void say(int number)
{
    const size_t i = number == SIGHUP ? 0 : number == SIGINT ? 1 : 2;
    const ssize_t written = write(STDERR_FILENO, lines[i], strlen(lines[i]));
    (void)written; /* nobody is left to be told */
}

static void write_lines(const char *who)
{
    static const char *const names[] = {"SIGHUP", "SIGINT", "SIGTERM"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)snprintf(lines[i], sizeof(lines[i]), "tessera: %serror: ended by %s\n", who,
                       names[i]);
}

static void wait_a_moment(void)
{
    const struct itimerval moment = {.it_value = {.tv_usec = GRACE_US}};
    (void)setitimer(ITIMER_REAL, &moment, NULL);
}

static void end(int number)
{
    const int before = errno;
    const int code = atomic_load(&leaving);

    if (code != 0 && number == SIGINT)
        _exit(code);
    if (code != 0) {
        /* Whoever leaves now ends the second that the launcher gives rank 0: mpirun sleeps it, and
         * wakes for every process that ends. */
        if (tsr_ending_status() == TSR_OK) {
            tsr_ending_ask(number);
            wait_a_moment();
        }
        errno = before;
        return;
    }
    if (tsr_ending_status() != TSR_OK) {
        if (number == SIGINT)
            _exit(tsr_status_exit_code(tsr_ending_status()));
        return;
    }
    tsr_ending_ask(number);
    if (atomic_load(&is_loud))
        say(number);
    if (!atomic_load(&has_to_keep))
        _exit(ANY_SIGNAL + number);
    wait_a_moment();
    errno = before;
}

/* The moment is over. */
static void give_up(int number)
{
    const int code = atomic_load(&leaving);

    (void)number;
    if (code != 0)
        _exit(code);
    const tsr_status st = tsr_ending_status();
    if (!atomic_load(&is_loud))
        say(st == TSR_ERR_HANGUP ? SIGHUP : st == TSR_ERR_INTERRUPT ? SIGINT : SIGTERM);
    _exit(tsr_status_exit_code(st));
}

static void handle(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(number, &action, NULL);
}

/* nohup, and a shell's background jobs, mean what they say. */
static void handle_unless_ignored(int number, void (*handler)(int))
{
    struct sigaction before;

    if (sigaction(number, NULL, &before) == 0 && before.sa_handler == SIG_IGN)
        return;
    handle(number, handler, 0);
}

void tsr_signals_watch(void)
{
    write_lines("");
    handle(SIGUSR1, ask_to_drain, SA_RESTART);
    handle(SIGALRM, give_up, 0);
    handle_unless_ignored(SIGHUP, end);
    handle_unless_ignored(SIGINT, end);
    handle(SIGTERM, end, 0);
}

void tsr_signals_be(int32_t rank, bool keeps)
{
    char who[WHO_BYTES] = "";

    if (rank >= 0)
        (void)snprintf(who, sizeof(who), "[rank %d] ", rank);
    write_lines(who);
    atomic_store(&is_loud, rank <= 0);
    atomic_store(&has_to_keep, keeps);
}

bool tsr_signals_are_loud(void)
{
    return atomic_load(&is_loud);
}

void tsr_signals_leave(int code)
{
    atomic_store(&leaving, code);
}

void tsr_signals_take_interrupts(void)
{
    handle_unless_ignored(SIGINT, note_interrupt);
}

bool tsr_signals_interrupted(void)
{
    return atomic_exchange(&interrupted, false);
}

void tsr_signals_hold(void)
{
    sigset_t held;

    (void)sigemptyset(&held);
    (void)sigaddset(&held, SIGHUP);
    (void)sigaddset(&held, SIGINT);
    (void)sigaddset(&held, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &held, &before_hold);
}

void tsr_signals_release(void)
{
    (void)sigprocmask(SIG_SETMASK, &before_hold, NULL);
}

bool tsr_signals_await_input(int fd)
{
    struct pollfd in = {.fd = fd, .events = POLLIN};
    int found = 0;

    do
        found = ppoll(&in, 1, NULL, &before_hold);
    while (found < 0 && errno == EINTR && !atomic_load(&interrupted) &&
           tsr_ending_status() == TSR_OK);
    return found > 0;
}

bool tsr_signals_drain(void)
{
    return atomic_load(&drain);
}
