/* Records every change that a process makes to files in one folder, so that a test can
 * work out what a disk would hold after a power cut.
 *
 * Loaded with LD_PRELOAD. EDGECOUNT_CUT_FOLDER is the folder, EDGECOUNT_CUT_LOG the record:
 *   u32 kind | u32 name length | name | u64 offset | u64 length | data
 * kind: 1 write, 2 truncate (offset is the new size), 3 sync of a file, 4 unlink. A sync
 * of the folder itself has the name "." and makes the deletions before it permanent.
 * Calls go through to the real files; EDGECOUNT_CUT_IGNORE_SYNC drops the sync records.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *folder(void) { return getenv("EDGECOUNT_CUT_FOLDER"); }

/* The name of the file behind fd, relative to the folder; 0 where it lies elsewhere. */
static int watched(int fd, char *name)
{
	char link[64], path[PATH_MAX];
	const char *dir = folder();
	if (!dir)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n <= 0)
		return 0;
	path[n] = 0;
	size_t d = strlen(dir);
	if (!strcmp(path, dir)) {
		strcpy(name, ".");
		return 1;
	}
	if (strncmp(path, dir, d) || path[d] != '/')
		return 0;
	/* The shared-memory index is rebuilt after a crash, and the lock file is empty. */
	if (strstr(path + d, "-shm") || strstr(path + d, ".lock"))
		return 0;
	strcpy(name, path + d + 1);
	return 1;
}

static void put(uint32_t kind, const char *name, uint64_t offset, const void *data, uint64_t length)
{
	uint32_t head[2] = {kind, (uint32_t)strlen(name)};
	uint64_t place[2] = {offset, length};
	struct iovec parts[4] = {
		{head, sizeof head}, {(void *)name, head[1]}, {place, sizeof place},
		{(void *)data, data ? length : 0},
	};
	pthread_mutex_lock(&lock);
	if (log_fd < 0)
		log_fd = REAL(open)(getenv("EDGECOUNT_CUT_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (REAL(writev)(log_fd, parts, 4) < 0)
		abort();
	pthread_mutex_unlock(&lock);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset)
{
	char name[PATH_MAX];
	ssize_t done = REAL(pwrite64)(fd, data, count, offset);
	if (done > 0 && watched(fd, name))
		put(1, name, offset, data, done);
	return done;
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset)
{
	return pwrite64(fd, data, count, offset);
}

ssize_t write(int fd, const void *data, size_t count)
{
	char name[PATH_MAX];
	off64_t offset = -1;
	int mine = fd > 2 && watched(fd, name);
	if (mine)
		offset = lseek64(fd, 0, SEEK_CUR);
	ssize_t done = REAL(write)(fd, data, count);
	if (mine && done > 0)
		put(1, name, offset, data, done);
	return done;
}

int ftruncate64(int fd, off64_t size)
{
	char name[PATH_MAX];
	int result = REAL(ftruncate64)(fd, size);
	if (!result && watched(fd, name))
		put(2, name, size, NULL, 0);
	return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static void synced(int fd)
{
	char name[PATH_MAX];
	if (!getenv("EDGECOUNT_CUT_IGNORE_SYNC") && watched(fd, name))
		put(3, name, 0, NULL, 0);
}

int fsync(int fd)
{
	int result = REAL(fsync)(fd);
	synced(fd);
	return result;
}

int fdatasync(int fd)
{
	int result = REAL(fdatasync)(fd);
	synced(fd);
	return result;
}

int unlink(const char *path)
{
	const char *dir = folder();
	int result = REAL(unlink)(path);
	if (!result && dir && !strncmp(path, dir, strlen(dir)) && !strstr(path, "-shm"))
		put(4, path + strlen(dir) + 1, 0, NULL, 0);
	return result;
}
