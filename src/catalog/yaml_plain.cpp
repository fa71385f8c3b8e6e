#include "catalog/yaml_plain.h"

#include <algorithm>
#include <optional>

namespace gpumod {

namespace {

constexpr std::size_t longest_line = 1000;  // YAML ends a key after 1024 characters
constexpr std::size_t most_lines = 5000;
constexpr int deepest = 8;

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_alphanumeric(char c) {
  return is_letter(c) || (c >= '0' && c <= '9');
}
bool is_null_word(std::string_view word) {
  return word == "~" || word == "null" || word == "Null" || word == "NULL";
}
std::string_view without_trailing_blanks(std::string_view text) {
  const auto last = text.find_last_not_of(' ');
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

/// A line that says something: neither blank nor a comment alone.
struct Line {
  int number = 0;
  std::size_t indent = 0;
  std::string_view text;  ///< without the indent

  int column_of(std::size_t offset) const { return static_cast<int>(indent + offset) + 1; }
};

/// Nothing when the text holds anything but printable ASCII and line feeds.
std::optional<std::vector<Line>> lines_of(std::string_view text) {
  std::vector<Line> lines;
  int number = 0;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.size() > longest_line || lines.size() > most_lines) return std::nullopt;
    if (!std::all_of(line.begin(), line.end(), [](char c) { return c >= 0x20 && c < 0x7F; })) return std::nullopt;
    const auto indent = line.find_first_not_of(' ');
    if (indent == std::string_view::npos || line[indent] == '#') continue;
    lines.push_back({number, indent, line.substr(indent)});
  }
  return lines;
}

/// Reads lines from the first to the last. Every function gives null for "not for me", and the whole reading ends.
class Reader {
 public:
  explicit Reader(std::vector<Line> lines) : lines_(std::move(lines)) {}

  Yaml document() {
    if (lines_.empty() || lines_.front().indent != 0) return nullptr;
    auto root = map(0, 1);
    return at_end() ? root : nullptr;
  }

 private:
  using Node = std::shared_ptr<YamlNode>;

  bool at_end() const { return next_ == lines_.size(); }
  const Line& line() const { return lines_[next_]; }

  static Node node(YamlNode::Kind kind, const Line& line, std::size_t offset) {
    auto fresh = std::make_shared<YamlNode>();
    fresh->kind = kind;
    fresh->line = line.number;
    fresh->column = line.column_of(offset);
    return fresh;
  }

  static Node scalar(const Line& line, std::size_t offset, std::string_view text, bool quoted) {
    const bool null = !quoted && is_null_word(text);
    auto fresh = node(null ? YamlNode::Kind::null : YamlNode::Kind::scalar, line, offset);
    if (!null) fresh->text = text;
    fresh->quoted = quoted;
    return fresh;
  }

  /// The length of a plain key that a colon and a blank (or the line's end) follow; 0: there is none.
  static std::size_t key_length(std::string_view text) {
    if (text.empty() || (!is_letter(text[0]) && text[0] != '_')) return 0;
    std::size_t length = 1;
    while (length < text.size() && (is_alphanumeric(text[length]) || text[length] == '_' || text[length] == '-'))
      ++length;
    if (length == text.size() || text[length] != ':' || is_null_word(text.substr(0, length))) return 0;
    return length + 1 == text.size() || text[length + 1] == ' ' ? length : 0;
  }

  Node map(std::size_t indent, int depth) {
    if (depth > deepest) return nullptr;
    auto result = node(YamlNode::Kind::map, line(), 0);
    while (!at_end() && line().indent == indent) {
      const Line& here = line();
      const auto length = key_length(here.text);
      if (length == 0) return nullptr;
      const auto key = scalar(here, 0, here.text.substr(0, length), false);
      if (result->find(key->text)) return nullptr;
      const auto value = value_of_key(here, length + 1, indent, depth);
      if (!value) return nullptr;
      result->weight += key->weight + value->weight;
      result->entries.push_back({key, value});
    }
    return closed(std::move(result), indent);
  }

  /// What stands behind the colon, or below it and deeper.
  Node value_of_key(const Line& here, std::size_t offset, std::size_t indent, int depth) {
    offset = std::min(here.text.find_first_not_of(' ', offset), here.text.size());
    ++next_;
    const bool nothing_here = offset == here.text.size() || here.text[offset] == '#';
    if (!nothing_here) return value(here, offset);
    if (at_end() || line().indent <= indent) return nullptr;  // an absent value: null, but standing where?
    return line().text.starts_with("- ") ? list(line().indent, depth + 1) : map(line().indent, depth + 1);
  }

  Node list(std::size_t indent, int depth) {
    if (depth > deepest) return nullptr;
    auto result = node(YamlNode::Kind::sequence, line(), 0);
    while (!at_end() && line().indent == indent) {
      const Line& here = line();
      if (!here.text.starts_with("- ")) return nullptr;
      const auto offset = here.text.find_first_not_of(' ', 1);
      if (offset == std::string_view::npos || here.text[offset] == '#') return nullptr;
      ++next_;
      const auto item = value(here, offset);
      if (!item) return nullptr;
      result->weight += item->weight;
      result->items.push_back(item);
    }
    return closed(std::move(result), indent);
  }

  /// A deeper line behind a value goes on with that value, or is an error.
  Node closed(Node collection, std::size_t indent) const {
    return !at_end() && line().indent > indent ? nullptr : std::move(collection);
  }

  /// A value that ends on its line.
  static Node value(const Line& here, std::size_t offset) {
    switch (here.text[offset]) {
      case '"':
      case '\'': {
        const auto end = quote_end(here.text, offset);
        return end && only_comment(here.text.substr(*end)) ? quoted(here, offset, *end) : nullptr;
      }
      case '[': return bracketed(here, offset);
      default: return plain(here, offset);
    }
  }

  static bool only_comment(std::string_view rest) {
    const auto first = rest.find_first_not_of(' ');
    return first == std::string_view::npos || (first > 0 && rest[first] == '#');
  }

  /// One past the closing quote, of a quote in which nothing is escaped.
  static std::optional<std::size_t> quote_end(std::string_view text, std::size_t offset) {
    const auto end = text.find(text[offset], offset + 1);
    if (end == std::string_view::npos || text.substr(offset, end - offset).find('\\') != std::string_view::npos)
      return std::nullopt;
    if (end + 1 < text.size() && text[end + 1] == text[offset]) return std::nullopt;
    return end + 1;
  }

  static Node quoted(const Line& here, std::size_t offset, std::size_t end) {
    return scalar(here, offset, here.text.substr(offset + 1, end - offset - 2), true);
  }

  /// Not what introduces another form: a plain word, a path, a number, a variable, an option.
  static bool begins_plainly(std::string_view text) {
    if (text.front() == '-') return text.size() > 1 && (is_alphanumeric(text[1]) || text[1] == '-');
    return is_alphanumeric(text.front()) || std::string_view("/._~$+").find(text.front()) != std::string_view::npos;
  }

  static Node plain(const Line& here, std::size_t offset) {
    auto text = here.text.substr(offset);
    text = without_trailing_blanks(text.substr(0, text.find(" #")));
    if (!begins_plainly(text) || text.back() == ':' || text.find(": ") != std::string_view::npos) return nullptr;
    return scalar(here, offset, text, false);
  }

  static Node bracketed(const Line& here, std::size_t offset) {
    auto result = node(YamlNode::Kind::sequence, here, offset);
    const auto skip_blanks = [&](std::size_t from) {
      return std::min(here.text.find_first_not_of(' ', from), here.text.size());
    };
    auto at = skip_blanks(offset + 1);
    if (here.text.substr(at).starts_with(']'))
      return only_comment(here.text.substr(at + 1)) ? std::move(result) : nullptr;
    for (;;) {
      Node item;
      if (at == here.text.size()) return nullptr;
      if (here.text[at] == '"' || here.text[at] == '\'') {
        const auto end = quote_end(here.text, at);
        if (!end) return nullptr;
        item = quoted(here, at, *end);
        at = *end;
      } else {
        const auto end = here.text.find_first_of(",[]{}:#&*!|>'\"%@`?", at);
        if (end == std::string_view::npos || (here.text[end] != ',' && here.text[end] != ']')) return nullptr;
        const auto text = without_trailing_blanks(here.text.substr(at, end - at));
        if (text.empty() || !begins_plainly(text)) return nullptr;
        item = scalar(here, at, text, false);
        at = end;
      }
      result->weight += item->weight;
      result->items.push_back(std::move(item));
      at = skip_blanks(at);
      if (at == here.text.size()) return nullptr;
      if (here.text[at] == ']') return only_comment(here.text.substr(at + 1)) ? std::move(result) : nullptr;
      if (here.text[at] != ',') return nullptr;
      at = skip_blanks(at + 1);
    }
  }

  std::vector<Line> lines_;
  std::size_t next_ = 0;
};

}  // namespace

Yaml read_plain_yaml(std::string_view text) {
  auto lines = lines_of(text);
  return lines ? Reader(std::move(*lines)).document() : nullptr;
}

}  // namespace gpumod
