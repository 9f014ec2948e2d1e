/* Counts the operations by which a process changes the files below a folder, and at one of them
   kills the process, or lets the disk be full from then on. Loaded by LD_PRELOAD: see interposed.py.
   An operation that changes nothing, such as opening a file to read it, does not count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { KILL, KILL_HALFWAY, FULL };

static char root[4096];
static long count, target;
static int mode, report = -1;

void arm(const char *folder, long at, int what, int descriptor) {
    snprintf(root, sizeof root, "%s", folder);
    count = 0, target = at, mode = what, report = descriptor;
}

static int is_below(const char *path) {
    char full[8192], here[4096];
    if (!root[0]) return 0;
    if (path[0] != '/' && getcwd(here, sizeof here)) {
        snprintf(full, sizeof full, "%s/%s", here, path);
        path = full;
    }
    size_t length = strlen(root);
    return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int is_open_below(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = root[0] ? readlink(link, path, 4095) : -1;
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* Returns whether the disk is full. */
static int next(const char *name, const char *path) {
    count++;
    if (report >= 0) dprintf(report, "%s %s\n", name, path + (path[0] == '/' ? strlen(root) : 0));
    if (!target || count < target || (mode != FULL && count > target)) return 0;
    if (mode == FULL) return 1;
    if (mode == KILL || strcmp(name, "write")) kill(getpid(), SIGKILL);
    return 0;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define FAIL return errno = ENOSPC, -1

/* Opening changes something only if it makes or empties a file; a full disk has no room for a new one. */
static int is_refused(const char *path, int flags) {
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_below(path)) return 0;
    int is_new = access(path, F_OK);
    return next("open", path) && is_new;
}

#define OPEN(function) \
    int function(const char *path, int flags, ...) { \
        REAL(int, #function, const char *, int, ...); \
        va_list list; \
        va_start(list, flags); \
        mode_t bits = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        if (is_refused(path, flags)) FAIL; \
        return real(path, flags, bits); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function) \
    int function(int folder, const char *path, int flags, ...) { \
        REAL(int, #function, int, const char *, int, ...); \
        va_list list; \
        va_start(list, flags); \
        mode_t bits = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        if (is_refused(path, flags)) FAIL; \
        return real(folder, path, flags, bits); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int descriptor, const void *bytes, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    char path[4096];
    if (is_open_below(descriptor, path)) {
        if (next("write", path)) FAIL;
        if (mode == KILL_HALFWAY && count == target) {
            real(descriptor, bytes, size / 2);
            kill(getpid(), SIGKILL);
        }
    }
    return real(descriptor, bytes, size);
}

#define ON_PATH(function) \
    int function(const char *path) { \
        REAL(int, #function, const char *); \
        if (is_below(path)) next(#function, path); \
        return real(path); \
    }
ON_PATH(unlink)
ON_PATH(rmdir)

#define SYNC(function) \
    int function(int descriptor) { \
        REAL(int, #function, int); \
        char path[4096]; \
        if (is_open_below(descriptor, path) && next(#function, path)) FAIL; \
        return real(descriptor); \
    }
SYNC(fsync)
SYNC(fdatasync)

#define CUT(function) \
    int function(int descriptor, off_t size) { \
        REAL(int, #function, int, off_t); \
        char path[4096]; \
        if (is_open_below(descriptor, path)) next(#function, path); \
        return real(descriptor, size); \
    }
CUT(ftruncate)
CUT(ftruncate64)

int flock(int descriptor, int operation) {
    REAL(int, "flock", int, int);
    char path[4096];
    if (is_open_below(descriptor, path)) next("flock", path);
    return real(descriptor, operation);
}

int mkdir(const char *path, mode_t bits) {
    REAL(int, "mkdir", const char *, mode_t);
    if (is_below(path) && next("mkdir", path) && access(path, F_OK)) FAIL;
    return real(path, bits);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    if (is_below(to)) next("rename", to);
    return real(from, to);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    if (is_below(path)) next("unlinkat", path);
    return real(folder, path, flags);
}
