/*
 * How much processor time a native module uses between two points at which other threads can have
 * the interpreter.
 *
 *     cc -O2 -shared -fPIC -o holds.so holds.c && LD_PRELOAD=$PWD/holds.so python3 ...
 *
 * Such points are where it gives the interpreter up, where a function of Python begins, whoever
 * calls it, and where Python code comes back from a function of C.
 * Processor time does not know how busy the machine is, but the machine's interrupts are in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

/* The spans between such points, of the thread that measures. */
#define MOST (1 << 20)
static long long spans_ns[MOST];
static __thread long long since_ns, points;
static __thread int measures;

static long long used_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return used.tv_sec * 1000000000LL + used.tv_nsec;
}

static void cut(void) {
    if (since_ns && points < MOST)
        spans_ns[points++] = used_ns() - since_ns;
    since_ns = 0;
}

static void begin(void) {
    if (measures)
        since_ns = used_ns();
}

/* See PyEval_SetProfile: of its events these are a call of a function of Python, and a return from
 * one of C, with or without an exception. */
enum { CALL = 0, C_EXCEPTION = 5, C_RETURN = 6 };
extern void PyEval_SetProfile(int (*)(void *, void *, int, void *), void *);

static int event(void *object, void *frame, int what, void *argument) {
    if (what == CALL || what == C_EXCEPTION || what == C_RETURN) {
        cut();
        begin();
    }
    return 0;
}

/* For who measures a call, by ctypes.PyDLL. */
void holds_begin(void) {
    measures = 1;
    points = 0;
    PyEval_SetProfile(event, 0);
    begin();
}

/* How many spans the call had. Where it is 1 of a call that gives the interpreter up, the
 * interpreter is no shared library: its functions are found before those of this file. */
long long holds_end(void) {
    cut();
    PyEval_SetProfile(0, 0);
    measures = 0;
    return points;
}

const long long *holds_spans(void) { return spans_ns; }

void *PyEval_SaveThread(void) {
    static void *(*real)(void);
    if (!real)
        real = dlsym(RTLD_NEXT, "PyEval_SaveThread");
    cut();
    return real();
}

void PyEval_RestoreThread(void *state) {
    static void (*real)(void *);
    if (!real)
        real = dlsym(RTLD_NEXT, "PyEval_RestoreThread");
    real(state);
    begin();
}
