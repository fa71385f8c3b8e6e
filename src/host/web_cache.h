// What the web answered, kept with its ETag: asked again, the server only says that nothing has changed; without a
// network, what was kept still counts. A folder of files for their owner alone that may be deleted at any time.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/result.h"
#include "base/time.h"

namespace gpumod {

struct KeptAnswer {
  std::string etag;  ///< "" when the server gave none
  std::string body;
  WallTime fetched;  ///< when the server last said that this is how it is
};

class WebCache {
 public:
  explicit WebCache(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Nothing when it was never kept, or what is there cannot be read.
  std::optional<KeptAnswer> find(const std::string& url) const;
  /// Errors: environment. Whoever asked has the answer all the same.
  Result<void> keep(const std::string& url, const KeptAnswer& answer) const;

 private:
  std::filesystem::path file_of(const std::string& url) const;
  std::filesystem::path folder_;
};

}  // namespace gpumod
