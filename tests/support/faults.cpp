// SPDX-License-Identifier: MIT
#include "support/faults.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <string_view>

namespace {

thread_local mora_tests::Faults* active = nullptr;

/// Whether this call fails, with errno set.
bool refused(const char* name) {
  if (active == nullptr) return false;
  ++active->calls;
  if (active->calls == active->fail_at) {
    active->failed = name;
    errno = active->code;
    return true;
  }
  // fsync, rename and unlink are not interrupted.
  const std::string_view call = name;
  const bool can_wait = call == "open" || call == "read" || call == "pwrite" || call == "close";
  if (can_wait && active->interrupt_every > 0 && active->calls % active->interrupt_every == 0) {
    errno = EINTR;
    return true;
  }
  return false;
}

std::size_t allowed(std::size_t size) {
  if (active == nullptr || active->most_bytes == 0) return size;
  return std::min(size, static_cast<std::size_t>(active->most_bytes));
}

}  // namespace

namespace mora_tests {

FaultyCalls::FaultyCalls(Faults& faults) { active = &faults; }
FaultyCalls::~FaultyCalls() { active = nullptr; }

}  // namespace mora_tests

extern "C" {

int __real_open(const char* path, int flags, ...);
int __real_fstat(int file, struct stat* status);
void* __real_mmap(void* at, std::size_t size, int protection, int flags, int file, off_t offset);
ssize_t __real_read(int file, void* bytes, std::size_t size);
ssize_t __real_pwrite(int file, const void* bytes, std::size_t size, off_t at);
int __real_fsync(int file);
int __real_close(int file);
int __real_rename(const char* from, const char* to);
int __real_unlink(const char* path);

int __wrap_open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return refused("open") ? -1 : __real_open(path, flags, mode);
}
int __wrap_fstat(int file, struct stat* status) {
  return refused("fstat") ? -1 : __real_fstat(file, status);
}
void* __wrap_mmap(void* at, std::size_t size, int protection, int flags, int file, off_t offset) {
  return refused("mmap") ? MAP_FAILED : __real_mmap(at, size, protection, flags, file, offset);
}
ssize_t __wrap_read(int file, void* bytes, std::size_t size) {
  if (refused("read")) return errno == 0 ? 0 : -1;
  return __real_read(file, bytes, allowed(size));
}
ssize_t __wrap_pwrite(int file, const void* bytes, std::size_t size, off_t at) {
  if (refused("pwrite")) return errno == 0 ? 0 : -1;
  return __real_pwrite(file, bytes, allowed(size), at);
}
int __wrap_fsync(int file) { return refused("fsync") ? -1 : __real_fsync(file); }
int __wrap_close(int file) {
  const bool refuse = refused("close");
  const int code = errno;
  const int result = __real_close(file);  // as Linux does, whatever it says
  if (!refuse) return result;
  errno = code;
  return -1;
}
int __wrap_rename(const char* from, const char* to) {
  return refused("rename") ? -1 : __real_rename(from, to);
}

int __wrap_unlink(const char* path) { return refused("unlink") ? -1 : __real_unlink(path); }

}  // extern "C"
