"""Making a log durable: one fdatasync after the other, in whatever thread, until one fails.

Knows descriptors and who waits for whom. Does not know what is flushed, nor what follows from it.
"""

cimport cython
from libc.errno cimport EIO, EINTR, errno

import os

cdef extern from "unistd.h" nogil:
    int fdatasync(int fd)
    ssize_t read(int fd, void *data, size_t size)
    ssize_t write(int fd, const void *data, size_t size)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutexattr_t:
        pass
    enum: PTHREAD_MUTEX_RECURSIVE
    int pthread_mutexattr_init(pthread_mutexattr_t *attributes)
    int pthread_mutexattr_settype(pthread_mutexattr_t *attributes, int kind)
    int pthread_mutexattr_destroy(pthread_mutexattr_t *attributes)
    int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef char GO = b"g"
cdef char STOP = b"s"


@cython.final
cdef class SyncLock:
    """Held while something is made durable: who waits for it learns of a failure first. Its owner may take it again.

    A lock of Python's would do, but for `SyncThread`, which takes it without the GIL.
    """

    def __cinit__(self):
        cdef pthread_mutexattr_t attributes
        pthread_mutexattr_init(&attributes)
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE)
        pthread_mutex_init(&self.mutex, &attributes)
        pthread_mutexattr_destroy(&attributes)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)

    def __enter__(self):
        if pthread_mutex_trylock(&self.mutex):
            with nogil:
                pthread_mutex_lock(&self.mutex)
        return self

    def __exit__(self, *_):
        pthread_mutex_unlock(&self.mutex)


cdef int flush(SyncLock lock, int fd) noexcept nogil:
    """errno, or 0 if everything that was written to the file is durable. A failure is final (assumption 5)."""
    cdef int failure
    pthread_mutex_lock(&lock.mutex)
    if lock.failure == 0 and fdatasync(fd):
        lock.failure = errno or EIO
    failure = lock.failure
    pthread_mutex_unlock(&lock.mutex)
    return failure


@cython.final
cdef class SyncPoint:
    """An fdatasync to be made: begun by `Log.begin_sync`, waited for in any thread, ended by `Log.end_sync`."""

    def wait(self):
        """Flush, without the GIL. Raises OSError; then the process must end (assumption 5)."""
        cdef SyncLock lock = self.lock
        cdef int fd, failure
        if self.file is not None:
            fd = self.file.fd
            with nogil:
                failure = flush(lock, fd)
            self.over(failure)
        self.done = True

    cdef int over(self, int failure) except -1:
        if failure:
            error = OSError(failure, os.strerror(failure))
            self.directory.fail(error)
            raise error
        self.file = None
        return 0


@cython.final
cdef class SyncThread:
    """Flushes one point at a time in a thread of its own, which does without the GIL: neither does it wait for another
    thread to let go of it, nor another for this one.

    `start(point)` and `end()` are called by the log's owner, in turn; `fileno` is readable when `end` may be called.
    """

    cdef int asked[2]                   # pipes: read end, write end
    cdef int told[2]
    cdef SyncPoint point                # None: none is under way
    cdef int failure

    def __cinit__(self):
        self.asked[0] = self.asked[1] = self.told[0] = self.told[1] = -1
        self.asked[0], self.asked[1] = os.pipe2(os.O_CLOEXEC)
        self.told[0], self.told[1] = os.pipe2(os.O_CLOEXEC)

    def __dealloc__(self):
        for fd in (self.asked[0], self.asked[1], self.told[0], self.told[1]):
            if fd >= 0:
                os.close(fd)

    def run(self):
        """What the thread does, until `stop`. A point that was started is flushed first."""
        cdef char what = GO
        cdef ssize_t got
        while what != STOP:
            with nogil:
                while True:
                    got = read(self.asked[0], &what, 1)
                    if got < 0 and errno == EINTR:
                        continue
                    if got != 1 or what == STOP:
                        what = STOP
                        break
                    self.failure = 0 if self.point.file is None else flush(self.point.lock, self.point.file.fd)
                    while write(self.told[1], &what, 1) < 0 and errno == EINTR:
                        pass

    def start(self, SyncPoint point not None):
        """Have it flushed."""
        assert self.point is None, "one at a time"
        self.point = point
        os.write(self.asked[1], b"g")

    def end(self):
        """The point that was started; waits until it is flushed. Raises OSError as `SyncPoint.wait` does."""
        cdef SyncPoint point = self.point
        assert point is not None, "none was started"
        os.read(self.told[0], 1)
        self.point = None
        point.over(self.failure)
        point.done = True
        return point

    def stop(self):
        os.write(self.asked[1], b"s")

    def fileno(self):
        return self.told[0]
