#include "fit/word_reader.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

bool WordReader::next() {
  if (next_ >= words_.size()) return false;
  flag_ = words_[next_++];
  attached_.reset();
  const auto equals = flag_.find('=');
  if (flag_.starts_with("-") && equals != std::string::npos) {
    attached_ = flag_.substr(equals + 1);
    flag_.resize(equals);
  }
  return true;
}

bool WordReader::is(std::initializer_list<std::string_view> names) const {
  return std::find(names.begin(), names.end(), flag_) != names.end();
}

void WordReader::dashes_for_underscores() {
  if (flag_.starts_with("--")) std::replace(flag_.begin(), flag_.end(), '_', '-');
}

std::string WordReader::value() {
  if (attached_) return *attached_;
  return next_ < words_.size() ? words_[next_++] : std::string();
}

std::optional<std::string> WordReader::value_among(std::initializer_list<std::string_view> values) {
  const bool waits = !attached_ && next_ < words_.size();
  const bool among = waits && std::find(values.begin(), values.end(), words_[next_]) != values.end();
  return among ? words_[next_++] : attached_;
}

Result<std::int64_t> WordReader::number() {
  const auto text = value();
  std::int64_t read = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), read);
  if (problem == std::errc() && end == text.data() + text.size()) return read;
  return fail(ErrorCode::refused, fmt::format("{} is '{}'", printable(flag_), printable(text)));
}

}  // namespace gpumod
