// One YAML document as a tree of values with positions, built from yaml-cpp's events and never from its nodes: events
// let us see what its nodes hide (duplicate keys, a second document, aliases before they are copied out) and bound what
// a hostile file may cost. A tree holds at most 100 000 nodes counted through aliases, and is at most 64 levels deep.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gpumod {

struct YamlNode;
using Yaml = std::shared_ptr<const YamlNode>;

struct YamlNode {
  enum class Kind { null, scalar, sequence, map };
  struct Entry {
    Yaml key;  ///< always a scalar
    Yaml value;
  };

  Kind kind = Kind::null;
  std::string text;     ///< of a scalar
  bool quoted = false;  ///< a scalar in quotes or a block: never a number by accident
  int line = 0;         ///< both count from 1; columns count characters, not bytes
  int column = 0;
  std::vector<Yaml> items;
  std::vector<Entry> entries;  ///< keys are unique; merge keys (`<<`) are already merged
  std::size_t weight = 1;      ///< nodes in this tree, aliases counted each time

  bool is_null() const { return kind == Kind::null; }
  bool is_scalar() const { return kind == Kind::scalar; }
  bool is_sequence() const { return kind == Kind::sequence; }
  bool is_map() const { return kind == Kind::map; }
  /// The entry of that key, or null.
  const Entry* find(std::string_view key) const;
};

struct YamlProblem {
  int line = 0;
  int column = 0;
  std::string message;
  std::string hint;
};

struct YamlDocument {
  Yaml root;  ///< null when the file is empty or nothing of it can be used
  std::vector<YamlProblem> problems;
};

constexpr std::size_t yaml_file_limit = 1 << 20;
constexpr std::size_t yaml_node_limit = 100'000;
constexpr std::size_t yaml_depth_limit = 64;

/// Never throws. Accepts a byte order mark and any line ends; refuses what is not UTF-8.
YamlDocument parse_yaml(std::string_view text);
/// The same, by yaml-cpp also where read_plain_yaml would do.
YamlDocument parse_any_yaml(std::string_view text);

}  // namespace gpumod
