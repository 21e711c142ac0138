/*
 * How much processor time a native module uses between two points at which other threads can have
 * the interpreter.
 *
 *     cc -O2 -shared -fPIC -o holds.so holds.c && LD_PRELOAD=$PWD/holds.so python3 ...
 *
 * Such points are where it gives the interpreter up, and where it calls a function of Python,
 * which changes threads where it begins. Processor time does not know how busy the machine is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static __thread long long since_ns, longest_ns, points;

static long long used_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return used.tv_sec * 1000000000LL + used.tv_nsec;
}

static void cut(void) {
    long long now = used_ns();
    if (since_ns && now - since_ns > longest_ns)
        longest_ns = now - since_ns;
    since_ns = 0;
    points++;
}

static void begin(void) { since_ns = used_ns(); }

/* For who measures a call, by ctypes.PyDLL. */
void holds_begin(void) {
    longest_ns = points = 0;
    begin();
}

long long holds_end(void) {
    cut();
    return longest_ns;
}

/* How many such points the call had, with its end. Where it is 1 of a call that gives the
 * interpreter up, the interpreter is no shared library: its functions are found before those of
 * this file. */
long long holds_points(void) { return points; }

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

void *PyObject_CallNoArgs(void *function) {
    static void *(*real)(void *);
    if (!real)
        real = dlsym(RTLD_NEXT, "PyObject_CallNoArgs");
    cut();
    void *given = real(function);
    begin();
    return given;
}
