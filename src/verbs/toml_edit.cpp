#include "verbs/toml_edit.h"

#include <algorithm>
#include <cctype>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace json = boost::json;

namespace {

using Path = std::vector<std::string>;

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
constexpr std::size_t deepest = 64;

bool is_bare(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
}

bool begins_with(const Path& path, const Path& begin) {
  return begin.size() <= path.size() && std::equal(begin.begin(), begin.end(), path.begin());
}

/// What stands at a place of a text.
struct Place {
  bool is_taken = false;   ///< there is something
  bool is_closed = false;  ///< nothing can be added there: what is above it is no table, or one that is closed
  json::object members{};  ///< texts, lists and tables; everything else is null
};

/// Reads TOML statement by statement. Lenient about what a value may be, strict about where it ends.
class Reader {
 public:
  Reader(std::string_view text, const Path& wanted) : text_(text), wanted_(wanted) {
    if (text_.starts_with(byte_order_mark)) at_ = byte_order_mark.size();
  }

  /// Errors: configuration, with the line.
  Result<Place> read() {
    for (skip_lines(); at_ < text_.size(); skip_lines()) {
      if (text_[at_] == '[')
        read_header();
      else
        read_assignment();
      skip_blanks();
      if (at_ < text_.size() && text_[at_] != '#' && text_[at_] != '\n' && text_.substr(at_, 2) != "\r\n") wrong();
      if (wrong_) {
        const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
        return fail(ErrorCode::configuration, fmt::format("line {} cannot be read as TOML", line));
      }
    }
    return std::move(place_);
  }

 private:
  /// What follows is not looked at any more.
  void wrong() {
    wrong_ = true;
    at_ = std::min(at_, text_.size());  // a text may end behind a backslash
  }
  bool is_at(char c) const { return !wrong_ && at_ < text_.size() && text_[at_] == c; }
  bool take(char c) {
    if (!is_at(c)) return false;
    ++at_;
    return true;
  }
  void need(char c) {
    if (!take(c)) wrong();
  }
  void skip_blanks() {
    while (is_at(' ') || is_at('\t'))
      ++at_;
  }
  void skip_lines() {
    for (;;) {
      skip_blanks();
      if (is_at('#'))
        at_ = std::min(text_.find('\n', at_), text_.size());
      else if (!take('\n') && !(is_at('\r') && text_.substr(at_, 2) == "\r\n" && take('\r')))
        return;
    }
  }

  void read_header() {
    need('[');
    const bool one_of_many = take('[');
    table_ = read_key();
    need(']');
    if (one_of_many) need(']');
    if (begins_with(table_, wanted_)) place_.is_taken = true;
    if (one_of_many && begins_with(wanted_, table_)) place_.is_closed = true;
  }

  void read_assignment() {
    auto path = table_;
    for (auto& part : read_key())
      path.push_back(std::move(part));
    need('=');
    skip_blanks();
    auto value = read_value(0);
    if (!wrong_) note(path, std::move(value));
  }

  void note(const Path& path, json::value value) {
    if (begins_with(wanted_, path)) {
      // From here on down it is closed, whether what is wanted is in it or not.
      json::value* inner = &value;
      for (auto part = wanted_.begin() + static_cast<std::ptrdiff_t>(path.size()); part != wanted_.end() && inner;
           ++part)
        inner = inner->is_object() ? inner->get_object().if_contains(*part) : nullptr;
      place_.is_closed = true;
      if (!inner) return;
      place_.is_taken = true;
      if (inner->is_object()) place_.members = std::move(inner->get_object());
    } else if (begins_with(path, wanted_)) {
      place_.is_taken = true;
      auto* into = &place_.members;
      for (auto part = wanted_.size(); part + 1 < path.size(); ++part) {
        auto& below = (*into)[path[part]];
        if (!below.is_object()) below = json::object();
        into = &below.get_object();
      }
      (*into)[path.back()] = std::move(value);
    }
  }

  /// a . "b" . 'c'
  Path read_key() {
    Path path;
    do {
      skip_blanks();
      if (is_at('"') || is_at('\'')) {
        const auto name = read_text(text_[at_]);
        if (!name.is_string()) wrong();
        path.emplace_back(name.is_string() ? std::string_view(name.get_string()) : std::string_view());
      } else {
        const auto begin = at_;
        while (at_ < text_.size() && is_bare(text_[at_]))
          ++at_;
        if (begin == at_) wrong();
        path.emplace_back(text_.substr(begin, at_ - begin));
      }
      skip_blanks();
    } while (take('.'));
    return path;
  }

  json::value read_value(std::size_t depth) {
    if (depth > deepest) wrong();
    if (wrong_ || at_ >= text_.size()) return wrong(), nullptr;
    switch (text_[at_]) {
      case '"':
      case '\'': return read_text(text_[at_]);
      case '[': return read_list(depth);
      case '{': return read_inline_table(depth);
      default: break;
    }
    // A number, a date, true or false: what it is does not matter, where it ends does.
    const auto begin = at_;
    while (at_ < text_.size() &&
           (is_bare(text_[at_]) || std::string_view("+.:").find(text_[at_]) != std::string_view::npos ||
            (text_[at_] == ' ' && at_ + 1 < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_ + 1])))))
      ++at_;
    if (begin == at_) wrong();
    return nullptr;
  }

  /// Null for one that JSON does not know: it is equal to nothing of ours.
  json::value read_text(char quote) {
    const std::string three(3, quote);
    const auto begin = at_;
    const bool several_lines = text_.substr(at_, 3) == three;
    at_ += several_lines ? 3 : 1;
    for (; at_ < text_.size(); ++at_) {
      if (several_lines ? text_.substr(at_, 3) == three : text_[at_] == quote) break;
      if (!several_lines && text_[at_] == '\n') break;
      if (quote == '"' && text_[at_] == '\\') ++at_;
    }
    if (at_ >= text_.size() || text_[at_] != quote) return wrong(), nullptr;
    at_ += several_lines ? 3 : 1;
    if (several_lines) {
      // Up to two more are its last characters.
      for (int more = 0; more < 2 && is_at(quote); ++more)
        ++at_;
      return nullptr;
    }
    if (quote == '\'') return json::value(text_.substr(begin + 1, at_ - begin - 2));
    std::error_code unknown;
    auto value = json::parse(text_.substr(begin, at_ - begin), unknown);
    return unknown ? json::value(nullptr) : value;
  }

  json::value read_list(std::size_t depth) {
    json::array list;
    need('[');
    for (skip_lines(); !wrong_ && !is_at(']'); skip_lines()) {
      list.push_back(read_value(depth + 1));
      skip_lines();
      if (!take(',')) break;
    }
    need(']');
    return list;
  }

  json::value read_inline_table(std::size_t depth) {
    json::object table;
    need('{');
    for (skip_lines(); !wrong_ && !is_at('}'); skip_lines()) {
      const auto path = read_key();
      need('=');
      skip_blanks();
      auto value = read_value(depth + 1);
      // A dotted key makes a table in it, of which nothing is wanted.
      table[path.front()] = path.size() == 1 ? std::move(value) : json::value(nullptr);
      skip_lines();
      if (!take(',')) break;
    }
    need('}');
    return table;
  }

  std::string_view text_;
  const Path& wanted_;
  std::size_t at_ = 0;
  bool wrong_ = false;
  Path table_;
  Place place_;
};

bool holds(const json::value& theirs, const json::value& ours) {
  if (!ours.is_object()) return theirs == ours;
  if (!theirs.is_object()) return false;
  return std::all_of(ours.get_object().begin(), ours.get_object().end(), [&](const auto& member) {
    const auto* value = theirs.get_object().if_contains(member.key());
    return value && holds(*value, member.value());
  });
}

std::string key_text(std::string_view key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), is_bare);
  return bare ? std::string(key) : json::serialize(json::string(key));
}

/// Texts of JSON are texts of TOML.
std::string value_text(const json::value& value) {
  std::vector<std::string> parts;
  if (const auto* list = value.if_array()) {
    for (const auto& each : *list)
      parts.push_back(value_text(each));
    return fmt::format("[{}]", join(parts, ", "));
  }
  if (const auto* table = value.if_object()) {
    for (const auto& [key, inner] : *table)
      parts.push_back(fmt::format("{} = {}", key_text(key), value_text(inner)));
    return fmt::format("{{ {} }}", join(parts, ", "));
  }
  return json::serialize(value);
}

std::string dotted(const Path& path) {
  std::vector<std::string> parts;
  for (const auto& part : path)
    parts.push_back(key_text(part));
  return join(parts, ".");
}

}  // namespace

std::string toml_table(const Path& path, const json::object& members) {
  auto text = fmt::format("[{}]\n", dotted(path));
  for (const auto& [key, value] : members)
    text += fmt::format("{} = {}\n", key_text(key), value_text(value));
  return text;
}

Result<std::string> with_toml_table(std::string_view given, const Path& path, const json::object& members) {
  if (!is_valid_utf8(given)) return fail(ErrorCode::configuration, "it is not UTF-8 text, as TOML has to be");
  const auto place = TRY(Reader(given, path).read());
  if (place.is_taken) {
    if (holds(place.members, members)) return std::string(given);
    return fail(ErrorCode::refused, fmt::format("{} is there already, and says something else", dotted(path)));
  }
  if (place.is_closed)
    return fail(ErrorCode::refused,
                fmt::format("{} cannot be added to it: what is above it is written in one piece", dotted(path)));
  std::string text(given);
  const bool ends_lines_twice = text.find("\r\n") != std::string::npos;
  auto table = toml_table(path, members);
  if (const auto begun = text.find_first_not_of(byte_order_mark); begun != std::string::npos) {
    if (!text.ends_with('\n')) table.insert(0, "\n");
    table.insert(0, "\n");
  }
  for (const char c : table)
    text += c == '\n' && ends_lines_twice ? "\r\n" : std::string(1, c);
  return text;
}

}  // namespace gpumod
