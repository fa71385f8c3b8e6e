#include "faces/cli/fields.h"

#include <array>
#include <charconv>
#include <ctime>

#include <fmt/format.h>

#include "base/text.h"
#include "base/time.h"
#include "base/units.h"
#include "model/gpu.h"

namespace gpumod::cli {

namespace json = boost::json;

const json::value& member(const json::object& object, std::string_view key) {
  static const json::value none;
  const auto* found = object.if_contains(key);
  return found ? *found : none;
}

const json::value& member(const json::value& value, std::string_view key) {
  static const json::object empty;
  const auto* object = value.if_object();
  return member(object ? *object : empty, key);
}

const json::array& elements(const json::value& value) {
  static const json::array none;
  const auto* array = value.if_array();
  return array ? *array : none;
}

std::string raw_text(const json::value& value) {
  const auto* string = value.if_string();
  return string ? std::string(string->data(), string->size()) : std::string();
}

std::string text(const json::value& value) {
  return printable(raw_text(value));
}

std::optional<double> number(const json::value& value) {
  if (value.is_int64()) return static_cast<double>(value.get_int64());
  if (value.is_uint64()) return static_cast<double>(value.get_uint64());
  if (value.is_double()) return value.get_double();
  return std::nullopt;
}

bool truth(const json::value& value) {
  return value.is_bool() && value.get_bool();
}

std::vector<std::string> texts(const json::value& list) {
  std::vector<std::string> all;
  for (const auto& item : elements(list))
    all.push_back(plain(item));
  return all;
}

std::string plain(const json::value& value) {
  if (value.is_string()) return text(value);
  if (value.is_bool()) return value.get_bool() ? "yes" : "no";
  if (const auto amount = number(value)) return fmt::format("{}", *amount);
  if (value.is_array()) return join(texts(value), ", ");
  if (const auto* object = value.if_object()) {
    std::vector<std::string> parts;
    for (const auto& [key, inner] : *object)
      if (auto shown = plain(inner); !shown.empty()) parts.push_back(fmt::format("{} {}", printable(key), shown));
    return join(parts, ", ");
  }
  return {};
}

std::string mebibytes(const json::value& bytes) {
  const auto count = number(bytes);
  return count ? to_string(Bytes(static_cast<std::int64_t>(*count))) : std::string();
}

std::string seconds_text(const json::value& amount) {
  const auto count = number(amount);
  if (!count) return {};
  return format_seconds(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(*count)));
}

std::string gpu_words(std::string_view index) {
  int read = 0;
  const auto [end, problem] = std::from_chars(index.data(), index.data() + index.size(), read);
  return problem == std::errc() && end == index.data() + index.size() ? gpu_in_words(read) : "GPU " + printable(index);
}

std::string local_time(const json::value& time, const Screen& screen) {
  const auto written = text(time);
  std::tm utc{}, local{}, today{};
  if (!::strptime(written.c_str(), "%Y-%m-%dT%H:%M:%SZ", &utc)) return written;
  const std::time_t then = ::timegm(&utc), current = std::time(nullptr);
  ::localtime_r(&then, &local);
  ::localtime_r(&current, &today);
  const bool is_today = local.tm_year == today.tm_year && local.tm_yday == today.tm_yday;
  std::array<char, 40> shown{};
  const char* form = !screen.terminal ? "%Y-%m-%d %H:%M:%S %z" : is_today ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S";
  std::string out{shown.data(), std::strftime(shown.data(), shown.size(), form, &local)};
  if (!screen.terminal && out.size() > 2) out.insert(out.size() - 2, ":");
  return out;
}

}  // namespace gpumod::cli
