// effcc/written.h: which pages of this process were written, as Linux (6.7 or later) tracks it.
//
//   int open_written(int fds[2], const u64** own)
//       a userfaultfd whose write protection resolves itself ("asynchronous"), and this process's page map; `own`, the
//       begin of a page, is 1 in this process and 0 in its forks; 0 or errno
//   int register_written(int fd, begin, end)
//       from now on writes to these pages can be tracked; 0 or errno
//   int own_pages(begin, end)
//       gives the process its own copy of pages that show a file (mapped privately), as a write to them would; 0 or errno
//   int fetch_written(int fd, const u64* own, begin, end)
//       whether any of the pages was written since it was last asked for, by the process or by the kernel on its
//       behalf, and protect the pages again, both in one step: 0, or 1; or minus errno where tracking was lost, because
//       other memory was mapped there (EPERM), or this is a fork of the process that opened it (ESRCH)
//   bool untouched(int fd, const u64* own, begin, end)
//       whether none of the pages was written since it was last asked for, and none was lost; protects nothing
//
// Pages never asked for, and pages that were dropped (MADV_DONTNEED), count as written. See "userfaultfd" and
// "pagemap" in the kernel's admin guide; the numbers stand here because headers of older systems lack them.
#pragma once

#include "effcc/types.h"

#if defined(__linux__)

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace effcc {

namespace detail {

struct uffd_api {
    u64 api, features, ioctls;
};

struct uffd_register {
    u64 start, len, mode, ioctls;
};

struct page_region {
    u64 start, end, categories;
};

struct page_scan {
    u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
    u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};

constexpr u64 wp_unpopulated = 1 << 13, wp_async = 1 << 15;  // features of userfaultfd
constexpr u64 register_wp = 1 << 1;
constexpr u64 protect_matching = 1 << 0, check_async = 1 << 1;  // flags of a scan
constexpr u64 is_tracked = 1 << 0, is_written = 1 << 1;  // what a scan tells of a page
constexpr unsigned long uffdio_api = _IOWR(0xAA, 0x3F, uffd_api);
constexpr unsigned long uffdio_register = _IOWR(0xAA, 0x00, uffd_register);
constexpr unsigned long pagemap_scan = _IOWR('f', 16, page_scan);

}  // namespace detail

static inline int open_written(int fds[2], const u64** own) {
    constexpr int wipe_on_fork = 18;  // since Linux 4.14
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return errno;
    *static_cast<u64*>(page) = 1;
    *own = static_cast<const u64*>(page);
    if (madvise(page, 4096, wipe_on_fork) < 0) return errno;
    constexpr long user_mode_only = 1;  // all that a user without privileges gets, and all that tracking needs
    int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | user_mode_only));
    if (fd < 0) return errno;
    detail::uffd_api api = {0xAA, detail::wp_async | detail::wp_unpopulated, 0};
    int map = ioctl(fd, detail::uffdio_api, &api) < 0 ? -1 : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (map < 0) {
        int error = errno;
        close(fd);
        return error;
    }
    fds[0] = fd, fds[1] = map;
    return 0;
}

static inline int register_written(int fd, u64 begin, u64 end) {
    detail::uffd_register range = {begin, end - begin, detail::register_wp, 0};
    return ioctl(fd, detail::uffdio_register, &range) < 0 ? errno : 0;
}

static inline int own_pages(u64 begin, u64 end) {
    constexpr int populate_write = 23;  // since Linux 5.14
    return madvise(reinterpret_cast<void*>(begin), end - begin, populate_write) < 0 ? errno : 0;
}

static inline int fetch_written(int map, const u64* own, u64 begin, u64 end) {
    using namespace detail;
    if (!*own) return -ESRCH;
    page_region regions[32];
    int written = 0;
    while (begin < end) {
        page_scan scan = {};
        scan.size = sizeof scan;
        scan.flags = protect_matching | check_async;
        scan.start = begin, scan.end = end;
        scan.vec = reinterpret_cast<u64>(regions), scan.vec_len = 32;
        scan.category_mask = scan.return_mask = is_written;
        int found = ioctl(map, pagemap_scan, &scan);
        if (found < 0) return -errno;
        written |= found > 0;
        if (scan.walk_end <= begin) return -EIO;
        begin = scan.walk_end;
    }
    return written;
}

static inline bool untouched(int map, const u64* own, u64 begin, u64 end) {
    using namespace detail;
    if (!*own) return false;
    page_region first;
    page_scan scan = {};
    scan.size = sizeof scan;
    scan.flags = check_async;
    scan.start = begin, scan.end = end;
    scan.vec = reinterpret_cast<u64>(&first), scan.vec_len = scan.max_pages = 1;
    scan.category_mask = scan.return_mask = is_written;  // of all questions the one that Linux answers at 1 ns a page
    return ioctl(map, pagemap_scan, &scan) == 0 && scan.walk_end == end;
}

}  // namespace effcc

#else

namespace effcc {

static inline int open_written(int*, const u64**) { return 38; }  // ENOSYS
static inline int register_written(int, u64, u64) { return 38; }
static inline int own_pages(u64, u64) { return 38; }
static inline int fetch_written(int, const u64*, u64, u64) { return -38; }
static inline bool untouched(int, const u64*, u64, u64) { return false; }

}  // namespace effcc

#endif
