#include "catalog/yaml_tree.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include "base/text.h"
#include "catalog/yaml_plain.h"

namespace gpumod {

const YamlNode::Entry* YamlNode::find(std::string_view key) const {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key->text == key; });
  return found == entries.end() ? nullptr : &*found;
}

namespace {

/// Positions of yaml-cpp count bytes; people's editors count characters. Events come in the order of the file, so the
/// count goes on from the last one: a file that is a single line stays linear.
class Positions {
 public:
  explicit Positions(std::string_view text) : text_(text) {
    starts_.push_back(0);
    for (std::size_t i = 0; i < text.size(); ++i)
      if (text[i] == '\n') starts_.push_back(i + 1);
  }

  std::pair<int, int> of(const YAML::Mark& mark) {
    if (mark.is_null()) return {0, 0};
    const auto line = std::min(static_cast<std::size_t>(std::max(mark.line, 0)), starts_.size() - 1);
    return of_offset(line, starts_[line] + static_cast<std::size_t>(std::max(mark.column, 0)));
  }

  std::pair<int, int> of_byte(std::size_t offset) {
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), offset);
    return of_offset(static_cast<std::size_t>(after - starts_.begin()) - 1, offset);
  }

 private:
  std::pair<int, int> of_offset(std::size_t line, std::size_t offset) {
    offset = std::min(offset, text_.size());
    if (line != line_ || offset < offset_) {
      line_ = line;
      offset_ = starts_[line];
      column_ = 0;
    }
    for (; offset_ < offset; ++offset_)
      if ((static_cast<unsigned char>(text_[offset_]) & 0xC0) != 0x80) ++column_;
    return {static_cast<int>(line) + 1, column_ + 1};
  }

  std::string_view text_;
  std::vector<std::size_t> starts_;
  std::size_t line_ = 0;
  std::size_t offset_ = 0;
  int column_ = 0;
};

class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(Positions& positions) : positions_(positions) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (stopped_) return;
    add(node(YamlNode::Kind::null, mark), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (stopped_ || !accept_tag(mark, tag)) return;
    auto scalar = node(YamlNode::Kind::scalar, mark);
    scalar->text = value;
    scalar->quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    add(std::move(scalar), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (stopped_) return;
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) return stop(mark, "an alias stands inside the very value that it names");
    add(found->second, YAML::NullAnchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::sequence, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::map, mark, tag, anchor);
  }
  void OnMapEnd() override {
    if (!stopped_) merge(open_.back());
    close();
  }

  Yaml root() const { return stopped_ ? nullptr : root_; }
  bool stopped() const { return stopped_; }
  std::vector<YamlProblem> take_problems() { return std::move(problems_); }

 private:
  struct Open {
    std::shared_ptr<YamlNode> node;
    YAML::anchor_t anchor;
    Yaml key;                    ///< of a map: read, its value is next
    std::set<std::string> keys;  ///< of a map: seen so far
  };

  std::shared_ptr<YamlNode> node(YamlNode::Kind kind, const YAML::Mark& mark) {
    auto fresh = std::make_shared<YamlNode>();
    fresh->kind = kind;
    std::tie(fresh->line, fresh->column) = positions_.of(mark);
    return fresh;
  }

  void problem(const YamlNode& at, std::string message, std::string hint = {}) {
    if (problems_.size() < 100) problems_.push_back({at.line, at.column, std::move(message), std::move(hint)});
  }

  void stop(const YAML::Mark& mark, std::string message, std::string hint = {}) {
    const auto [line, column] = positions_.of(mark);
    problems_.push_back({line, column, std::move(message), std::move(hint)});
    stopped_ = true;
  }

  bool too_many(const Open& map, const YamlNode& at) {
    if (map.node->weight <= yaml_node_limit) return false;
    problem(at, fmt::format("the file holds more than {} values, its aliases counted each time", yaml_node_limit));
    stopped_ = true;
    return true;
  }

  bool accept_tag(const YAML::Mark& mark, const std::string& tag) {
    static const std::set<std::string> harmless = {"",
                                                   "?",
                                                   "!",
                                                   "tag:yaml.org,2002:str",
                                                   "tag:yaml.org,2002:int",
                                                   "tag:yaml.org,2002:float",
                                                   "tag:yaml.org,2002:bool",
                                                   "tag:yaml.org,2002:null",
                                                   "tag:yaml.org,2002:map",
                                                   "tag:yaml.org,2002:seq"};
    if (harmless.contains(tag)) return true;
    stop(mark, fmt::format("the tag '{}' means nothing here", printable(tag.substr(0, 80))), "Write the plain value.");
    return false;
  }

  void open(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (stopped_ || !accept_tag(mark, tag)) return;
    if (open_.size() >= yaml_depth_limit)
      return stop(mark, fmt::format("values are nested more than {} levels deep", yaml_depth_limit));
    open_.push_back({node(kind, mark), anchor, nullptr, {}});
  }

  void close() {
    if (stopped_) return;
    auto done = std::move(open_.back());
    open_.pop_back();
    add(std::move(done.node), done.anchor);
  }

  void add(Yaml value, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) anchors_[anchor] = value;
    if (open_.empty()) {
      root_ = std::move(value);
      return;
    }
    auto& parent = open_.back();
    parent.node->weight += value->weight;
    if (too_many(parent, *value)) return;
    if (parent.node->is_sequence()) {
      parent.node->items.push_back(std::move(value));
    } else if (!parent.key) {
      if (!value->is_scalar()) {
        problem(*value, "a key must be a plain word", "Write `key: value`.");
        stopped_ = true;
        return;
      }
      parent.key = std::move(value);
    } else {
      add_entry(parent, std::move(value));
    }
  }

  void add_entry(Open& map, Yaml value) {
    const Yaml key = std::exchange(map.key, nullptr);
    if (map.keys.insert(key->text).second) {
      map.node->entries.push_back({key, std::move(value)});
      return;
    }
    const auto* first = map.node->find(key->text);
    problem(*key, fmt::format("the key '{}' stands twice", printable(key->text.substr(0, 80))),
            fmt::format("It was first written in line {}; keep one of them.", first->key->line));
  }

  /// `<<: *defaults` and `<<: [*a, *b]`: what the map says itself wins, then the earlier of the merged ones.
  void merge(Open& map) {
    auto& entries = map.node->entries;
    const auto found = std::find_if(entries.begin(), entries.end(),
                                    [](const auto& e) { return e.key->text == "<<" && !e.key->quoted; });
    if (found == entries.end()) return;
    const Yaml source = found->value;
    entries.erase(found);
    map.keys.erase("<<");
    const std::vector<Yaml> sources = source->is_sequence() ? source->items : std::vector<Yaml>{source};
    for (const auto& each : sources) {
      if (!each->is_map()) {
        problem(*each, "a merge key (<<) takes a map, or a list of maps");
        continue;
      }
      for (const auto& entry : each->entries) {
        if (!map.keys.insert(entry.key->text).second) continue;
        entries.push_back(entry);
        map.node->weight += entry.value->weight + 1;
      }
      if (too_many(map, *each)) return;
    }
  }

  Positions& positions_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Yaml> anchors_;
  Yaml root_;
  bool stopped_ = false;
  std::vector<YamlProblem> problems_;
};

/// Only says whether and where a further document begins.
class SecondDocument : public TreeBuilder {
 public:
  SecondDocument(Positions& positions) : TreeBuilder(positions), positions_of_it_(positions) {}
  void OnDocumentStart(const YAML::Mark& mark) override { where_ = positions_of_it_.of(mark); }
  std::pair<int, int> where() const { return where_; }

 private:
  Positions& positions_of_it_;
  std::pair<int, int> where_ = {0, 0};
};

std::string normalized(std::string_view text) {
  if (text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
  std::string lines;
  lines.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') {
      lines += text[i];
      continue;
    }
    lines += '\n';
    if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
  }
  return lines;
}

/// The first byte that YAML does not allow: broken UTF-8, or a control character (one of which yaml-cpp reads as the
/// end of the file).
std::optional<YamlProblem> forbidden_byte(std::string_view text, Positions& positions) {
  const auto at = [&](std::size_t offset, std::string message, std::string hint) {
    const auto [line, column] = positions.of_byte(offset);
    return YamlProblem{line, column, std::move(message), std::move(hint)};
  };
  if (!is_valid_utf8(text)) {
    std::size_t good = 0;
    for (std::size_t length = 1; length <= 4;) {
      if (good + length <= text.size() && is_valid_utf8(text.substr(good, length))) {
        good += length;
        length = 1;
      } else {
        ++length;
      }
    }
    return at(good, fmt::format("the file is not UTF-8: byte 0x{:02X}", static_cast<unsigned char>(text[good])),
              "Save it as UTF-8.");
  }
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && byte != '\t' && byte != '\n') || byte == 0x7F)
      return at(i, fmt::format("a control character (0x{:02X}) stands in the file", byte), "Remove it.");
  }
  return std::nullopt;
}

/// The byte of a tab that stands where a line (from 0) is indented. yaml-cpp calls that an "illegal map value".
std::optional<std::size_t> tab_in_indentation(std::string_view text, int line) {
  std::size_t begin = 0;
  for (int n = 0; n < line; ++n) {
    const auto end = text.find('\n', begin);
    if (end == std::string_view::npos) return std::nullopt;
    begin = end + 1;
  }
  const auto first = text.find_first_not_of(' ', begin);
  return first != std::string_view::npos && text[first] == '\t' ? std::optional(first) : std::nullopt;
}

std::string in_words(const YAML::ParserException& error) {
  // yaml-cpp's name for nesting beyond its own limit.
  if (error.msg == YAML::ErrorMsg::BAD_FILE) return "values are nested too deeply";
  return fmt::format("this is not valid YAML: {}", printable(error.msg.substr(0, 200)));
}

}  // namespace

YamlDocument parse_yaml(std::string_view raw) {
  if (raw.size() <= yaml_file_limit)
    if (auto root = read_plain_yaml(raw)) return {std::move(root), {}};
  return parse_any_yaml(raw);
}

YamlDocument parse_any_yaml(std::string_view raw) {
  if (raw.size() > yaml_file_limit)
    return {nullptr, {{0, 0, fmt::format("the file is larger than {} KiB", yaml_file_limit / 1024), {}}}};
  const std::string text = normalized(raw);
  Positions positions(text);
  if (auto problem = forbidden_byte(text, positions)) return {nullptr, {std::move(*problem)}};

  TreeBuilder tree(positions);
  const auto broken = [&](int line, int column, std::string message) {
    YamlDocument document{nullptr, tree.take_problems()};
    if (!tree.stopped()) document.problems.push_back({line, column, std::move(message), {}});
    return document;
  };
  try {
    // yaml-cpp takes the end of the file for the end of a quote when a line break stands before it; a comment without
    // one makes it see that the quote is open.
    std::istringstream stream(text + "\n#");
    YAML::Parser parser(stream);
    parser.HandleNextDocument(tree);
    YamlDocument document{tree.root(), tree.take_problems()};
    if (tree.stopped()) return document;
    SecondDocument second(positions);
    if (parser.HandleNextDocument(second)) {
      document.problems.push_back({second.where().first, second.where().second, "a second document begins here",
                                   "One file holds one document: remove the `---` in between, or make two files."});
      document.root = nullptr;
    }
    return document;
  } catch (const YAML::ParserException& error) {
    if (const auto tab = tab_in_indentation(text, error.mark.line); tab && !tree.stopped()) {
      const auto [line, column] = positions.of_byte(*tab);
      auto document = broken(line, column, "a tab stands in the indentation");
      document.problems.back().hint = "YAML takes blanks alone there.";
      return document;
    }
    const auto [line, column] = positions.of(error.mark);
    return broken(line, column, in_words(error));
  } catch (const std::exception& error) {
    return broken(0, 0,
                  fmt::format("this is not valid YAML: {}", printable(std::string_view(error.what()).substr(0, 200))));
  }
}

}  // namespace gpumod
