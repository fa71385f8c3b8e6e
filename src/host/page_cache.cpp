#include "host/page_cache.h"

#include <algorithm>
#include <iterator>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/result.h"

namespace gpumod {

namespace {

/// Mapped and asked about in pieces: a model of 100 GB takes a vector of 25 million pages.
constexpr std::int64_t piece = 1 << 30;

Bytes cached_part(int file, std::int64_t size) {
  const std::int64_t page = ::sysconf(_SC_PAGESIZE);
  std::int64_t pages = 0;
  std::vector<unsigned char> resident;
  for (std::int64_t offset = 0; offset < size; offset += piece) {
    const auto length = static_cast<std::size_t>(std::min(piece, size - offset));
    void* where = ::mmap(nullptr, length, PROT_READ, MAP_SHARED, file, offset);
    if (where == MAP_FAILED) continue;
    resident.assign((length + static_cast<std::size_t>(page) - 1) / static_cast<std::size_t>(page), 0);
    if (::mincore(where, length, resident.data()) == 0)
      pages += std::count_if(resident.begin(), resident.end(), [](unsigned char flags) { return (flags & 1) != 0; });
    ::munmap(where, length);
  }
  return Bytes(std::min(size, pages * page));
}

}  // namespace

DroppedPages& DroppedPages::operator+=(DroppedPages other) {
  files += other.files;
  size += other.size;
  cached_before += other.cached_before;
  cached_after += other.cached_after;
  std::move(other.problems.begin(), other.problems.end(), std::back_inserter(problems));
  return *this;
}

DroppedPages drop_from_page_cache(const std::vector<std::filesystem::path>& files) {
  DroppedPages dropped;
  for (const auto& path : files) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    struct stat info {};
    if (!file || ::fstat(file.get(), &info) != 0) {
      dropped.problems.push_back(system_error(path.string(), errno).message);
      continue;
    }
    if (!S_ISREG(info.st_mode)) continue;
    ++dropped.files;
    dropped.size += Bytes(info.st_size);
    dropped.cached_before += cached_part(file.get(), info.st_size);
    (void)::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    dropped.cached_after += cached_part(file.get(), info.st_size);
  }
  return dropped;
}

}  // namespace gpumod
