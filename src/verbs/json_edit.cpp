#include "verbs/json_edit.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
constexpr std::size_t deepest = 128;

/// JSON's own: a form feed is none, and may stand in a comment.
bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

json::parse_options jsonc() {
  json::parse_options options;
  options.allow_comments = true;
  options.allow_trailing_commas = true;
  options.max_depth = deepest;
  return options;
}

void write_pretty(std::string& out, const json::value& value, std::string_view unit, std::string_view line_end,
                  std::size_t depth) {
  const auto new_line = [&](std::size_t level) {
    out += line_end;
    for (std::size_t i = 0; i < level; ++i)
      out += unit;
  };
  const auto* object = value.if_object();
  const auto* array = value.if_array();
  if ((!object || object->empty()) && (!array || array->empty())) {
    out += json::serialize(value);
    return;
  }
  out += object ? '{' : '[';
  bool first = true;
  const auto next = [&] {
    if (!std::exchange(first, false)) out += ',';
    new_line(depth + 1);
  };
  if (object)
    for (const auto& [key, inner] : *object) {
      next();
      out += json::serialize(json::string(key)) + ": ";
      write_pretty(out, inner, unit, line_end, depth + 1);
    }
  else
    for (const auto& inner : *array) {
      next();
      write_pretty(out, inner, unit, line_end, depth + 1);
    }
  new_line(depth);
  out += object ? '}' : ']';
}

/// Finds its way through a text that is known to be JSON with comments: nothing here can be malformed.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::size_t skip_blanks(std::size_t at) const {
    while (at < text_.size()) {
      if (is_blank(text_[at]))
        ++at;
      else if (text_.substr(at, 2) == "//")
        at = std::min(text_.find('\n', at), text_.size());
      else if (text_.substr(at, 2) == "/*")
        at = std::min(text_.find("*/", at + 2), text_.size() - 2) + 2;
      else
        break;
    }
    return at;
  }

  /// After the value that begins at `at`.
  std::size_t skip_value(std::size_t at) const {
    if (text_[at] == '"') return skip_text(at);
    if (text_[at] != '{' && text_[at] != '[') {
      while (at < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at])) ||
                                   std::string_view("+-.").find(text_[at]) != std::string_view::npos))
        ++at;
      return at;
    }
    std::size_t depth = 0;
    while (at < text_.size()) {
      at = skip_blanks(at);
      if (at >= text_.size()) break;
      const char c = text_[at];
      if (c == '"') {
        at = skip_text(at);
        continue;
      }
      ++at;
      if (c == '{' || c == '[') ++depth;
      if ((c == '}' || c == ']') && --depth == 0) break;
    }
    return at;
  }

  struct Object {
    std::size_t close = 0;                ///< its '}'
    std::optional<std::size_t> last_end;  ///< after its last value
    bool comma_at_end = false;
    std::optional<std::pair<std::size_t, std::size_t>>
        value;  ///< of the key that was looked for: the last, as readers do
  };
  Object look(std::size_t open, std::string_view key) const {
    Object object;
    std::size_t at = skip_blanks(open + 1);
    while (at < text_.size() && text_[at] != '}') {
      const auto key_end = skip_text(at);
      std::error_code ignored;
      const auto name = json::parse(text_.substr(at, key_end - at), ignored);
      at = skip_blanks(skip_blanks(key_end) + 1);  // over the ':'
      const auto end = skip_value(at);
      if (name.is_string() && name.get_string() == key) object.value = {at, end};
      object.last_end = end;
      at = skip_blanks(end);
      object.comma_at_end = at < text_.size() && text_[at] == ',';
      if (object.comma_at_end) at = skip_blanks(at + 1);
    }
    object.close = at;
    return object;
  }

 private:
  std::size_t skip_text(std::size_t at) const {
    for (++at; at < text_.size() && text_[at] != '"'; ++at)
      if (text_[at] == '\\') ++at;
    return std::min(at + 1, text_.size());
  }

  std::string_view text_;
};

/// What one level is indented by, going by the first indented line.
std::string indentation_of(std::string_view text) {
  for (auto at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at + 1)) {
    const auto end = text.find_first_not_of(" \t", at + 1);
    if (end != std::string_view::npos && end > at + 1 && text[end] == '"')
      return std::string(text.substr(at + 1, end - at - 1));
  }
  return "  ";
}

/// A member at the end of an object, where there was none of its name.
std::string with_member(std::string text, const Scanner::Object& object, std::size_t open, std::string_view key,
                        const std::string& rendered, std::string_view unit, std::string_view line_end,
                        std::size_t depth) {
  // Behind the last thing that is written there, a comment included.
  std::size_t place = object.close;
  while (place > open + 1 && is_blank(text[place - 1]))
    --place;
  const bool closes_alone = text.find('\n', place) < object.close;
  std::string member(line_end);
  for (std::size_t i = 0; i <= depth; ++i)
    member += unit;
  member += fmt::format("{}: {}", json::serialize(json::string(key)), rendered);
  if (!closes_alone) {
    member += line_end;
    for (std::size_t i = 0; i < depth; ++i)
      member += unit;
  }
  text.insert(place, member);
  if (object.last_end && !object.comma_at_end) text.insert(*object.last_end, ",");
  return text;
}

}  // namespace

std::string pretty_json(const json::value& value) {
  std::string out;
  write_pretty(out, value, "  ", "\n", 0);
  return out;
}

Result<std::string> with_json_value(std::string_view given, const std::vector<std::string>& path,
                                    const json::value& value) {
  std::string text(given);
  const std::size_t begin = text.starts_with(byte_order_mark) ? byte_order_mark.size() : 0;
  if (trim(std::string_view(text).substr(begin)).empty()) text.resize(begin), text += "{}\n";
  std::error_code malformed;
  const auto whole = json::parse(std::string_view(text).substr(begin), malformed, {}, jsonc());
  if (malformed) return fail(ErrorCode::configuration, fmt::format("it is not JSON: {}", malformed.message()));
  if (!whole.is_object()) return fail(ErrorCode::configuration, "it is not a JSON object");

  const auto unit = indentation_of(text);
  const std::string_view line_end = text.find("\r\n") != std::string::npos ? "\r\n" : "\n";
  const Scanner scanner(text);
  std::size_t open = scanner.skip_blanks(begin);
  for (std::size_t depth = 0; depth < path.size(); ++depth) {
    const auto object = scanner.look(open, path[depth]);
    const bool last = depth + 1 == path.size();
    std::string rendered;
    if (!object.value) {
      json::value missing = value;
      for (std::size_t i = path.size() - 1; i > depth; --i)
        missing = json::object{{path[i], std::move(missing)}};
      write_pretty(rendered, missing, unit, line_end, depth + 1);
      return with_member(text, object, open, path[depth], rendered, unit, line_end, depth);
    }
    const auto [from, to] = *object.value;
    if (last) {
      const auto there = json::parse(std::string_view(text).substr(from, to - from), malformed, {}, jsonc());
      if (!malformed && there == value) return text;
      write_pretty(rendered, value, unit, line_end, depth + 1);
      return text.replace(from, to - from, rendered);
    }
    if (text[from] != '{')
      return fail(ErrorCode::configuration, fmt::format("'{}' in it is no object", printable(path[depth])));
    open = from;
  }
  return text;
}

}  // namespace gpumod
