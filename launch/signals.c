/* Handlers write words and make calls that handlers may make; everything else reads the words. */
#include "launch/signals.h"

#include "runtime/base/ending.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

/* mpirun kills a second after it has sent SIGTERM. */
enum { GRACE_S = 2, ANY_SIGNAL = 128 };

static volatile int drain;
static atomic_bool is_loud = true;
static atomic_bool has_to_keep;
static atomic_int leaving; /* an exit code; 0: not leaving */

static void ask_to_drain(int number)
{
    (void)number;
    drain = 1;
}

static void say(int number)
{
    static const char hangup[] = "tessera: error: ended by SIGHUP\n";
    static const char interrupt[] = "tessera: error: ended by SIGINT\n";
    static const char terminated[] = "tessera: error: ended by SIGTERM\n";
    const char *line = number == SIGHUP ? hangup : number == SIGINT ? interrupt : terminated;

    const ssize_t written = write(STDERR_FILENO, line, strlen(line));
    (void)written; /* nobody is left to be told */
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
        tsr_ending_ask(number);
        (void)alarm(GRACE_S);
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
    (void)alarm(GRACE_S);
    errno = before;
}

/* The moment is over. */
static void give_up(int number)
{
    const int code = atomic_load(&leaving);

    (void)number;
    _exit(code != 0 ? code : tsr_status_exit_code(tsr_ending_status()));
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
    handle(SIGUSR1, ask_to_drain, SA_RESTART);
    handle(SIGALRM, give_up, 0);
    handle_unless_ignored(SIGHUP, end);
    handle_unless_ignored(SIGINT, end);
    handle(SIGTERM, end, 0);
}

void tsr_signals_be(bool loud, bool keeps)
{
    atomic_store(&is_loud, loud);
    atomic_store(&has_to_keep, keeps);
}

void tsr_signals_leave(int code)
{
    atomic_store(&leaving, code);
}

const volatile int *tsr_signals_drain(void)
{
    return &drain;
}
