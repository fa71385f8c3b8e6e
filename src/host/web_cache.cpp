// A file begins with one line of JSON, {"url","etag","fetched"}; the body follows as it came. The address stands in it
// because the file's name is only a hash: an answer to another question is never taken for this one's.

#include "host/web_cache.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/fd.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::size_t most_kept = 128 << 20;

}  // namespace

std::filesystem::path WebCache::file_of(const std::string& url) const {
  return folder_ / fmt::format("{:016x}", std::hash<std::string>()(url));
}

std::optional<KeptAnswer> WebCache::find(const std::string& url) const {
  auto text = read_file(file_of(url), most_kept);
  if (!text) return std::nullopt;
  const auto end = text->find('\n');
  if (end == std::string::npos) return std::nullopt;
  boost::system::error_code malformed;
  const auto head = json::parse(std::string_view(*text).substr(0, end), malformed);
  if (malformed || !head.is_object()) return std::nullopt;
  const auto& object = head.get_object();
  const auto* about = object.if_contains("url");
  const auto* etag = object.if_contains("etag");
  const auto* fetched = object.if_contains("fetched");
  if (!about || !about->is_string() || about->get_string() != url || !etag || !etag->is_string() || !fetched ||
      !fetched->is_int64())
    return std::nullopt;
  return KeptAnswer{std::string(etag->get_string()), text->substr(end + 1),
                    WallTime(std::chrono::microseconds(fetched->get_int64()))};
}

Result<void> WebCache::keep(const std::string& url, const KeptAnswer& answer) const {
  if (answer.body.size() > most_kept - (1 << 20)) return {};
  TRY(make_directories(folder_, 0700));
  const json::object head{{"url", url}, {"etag", answer.etag}, {"fetched", answer.fetched.time_since_epoch().count()}};
  return write_file_atomically(file_of(url), json::serialize(head) + "\n" + answer.body, 0600);
}

}  // namespace gpumod
