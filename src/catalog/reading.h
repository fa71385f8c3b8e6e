// What reading one file needs around it: where problems go, and what $NAME stands for.
//
// $NAME and ${NAME} are replaced once, never in what a replacement brought: by the service's env_file, then
// `variables:` of gpumod.yaml, then HOME, USER and XDG_*, then PORT and HOST of the service itself. $$ is a dollar. Any
// other name is an error, because an empty path is worse than none.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "catalog/catalog.h"
#include "catalog/yaml_tree.h"

namespace gpumod {

struct FileText {
  std::string text;
  bool others_may_read = false;
};

/// The same for all files of one catalogue.
struct Surroundings {
  std::filesystem::path config;
  VariableLookup machine;  ///< HOME, USER, XDG_*
  std::map<std::string, std::string> variables;
  std::function<Result<FileText>(const std::filesystem::path&)> read;  ///< null: nothing is opened
};

constexpr std::size_t problems_per_file = 100;

class Reading {
 public:
  Reading(std::string file, const Surroundings& around, std::vector<Problem>& problems)
      : file_(std::move(file)), around_(around), problems_(problems) {}

  void error(const YamlNode& at, std::string message, std::string hint = {});
  void warning(const YamlNode& at, std::string message, std::string hint = {});
  bool failed() const { return failed_; }
  void fail_silently() { failed_ = true; }

  SourceLocation where(const YamlNode& node) const { return {file_, node.line, node.column}; }
  const std::string& file() const { return file_; }
  const Surroundings& around() const { return around_; }

  /// Values of env_file for $NAME from here on.
  void know_environment(std::map<std::string, std::string> values) { environment_ = std::move(values); }
  void know_endpoint(std::string host, std::uint16_t port) {
    host_ = std::move(host);
    port_ = port;
  }

  struct Expansion {
    bool keep_endpoint = false;  ///< ${PORT} and ${HOST} are the engine's to fill in
    bool visible = false;        ///< the result becomes an argument, which every user of the machine can read
    bool home = false;           ///< a leading ~/ is the home directory
  };
  /// Unset when a problem was reported.
  std::optional<std::string> expand(const YamlNode& at, std::string_view text, Expansion how);

  /// Absolute: relative paths are relative to the configuration directory.
  std::filesystem::path absolute(const std::string& path) const;

 private:
  void report(Severity severity, const YamlNode& at, std::string message, std::string hint);
  std::optional<std::string> value_of(const YamlNode& at, const std::string& name, Expansion how);
  std::vector<std::string> known_names() const;

  std::string file_;
  const Surroundings& around_;
  std::vector<Problem>& problems_;
  std::map<std::string, std::string> environment_;
  std::string host_;
  std::uint16_t port_ = 0;
  std::size_t reported_ = 0;
  bool failed_ = false;
};

}  // namespace gpumod
