// The kernel's page cache, for measuring how long things take when a file has to come from the disk. Only a file that
// nobody has mapped or is writing can be dropped, and a file system that lives in memory has nowhere to drop it to: what
// came of it is counted, not believed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/units.h"

namespace gpumod {

struct DroppedPages {
  std::size_t files = 0;
  Bytes size;                         ///< of all of them
  Bytes cached_before, cached_after;  ///< as mincore(2) tells; it says "all" of a file that we may not write
  std::vector<std::string> problems;  ///< files that could not be opened, in words

  DroppedPages& operator+=(DroppedPages other);
};

/// posix_fadvise(POSIX_FADV_DONTNEED) on each file. May block: it opens them, and asks about every page.
DroppedPages drop_from_page_cache(const std::vector<std::filesystem::path>& files);

}  // namespace gpumod
