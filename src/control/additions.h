// What people add to how a service is started, beyond what its engine makes of its options.
#pragma once

#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "catalog/catalog.h"

namespace gpumod {

/// What it inherits, then its own. Of an adopted unit only its own: the settings are for units of ours.
struct Additions {
  std::vector<std::string> words;             ///< of the command line
  std::map<std::string, Secret> environment;  ///< without what the engine sets by itself
};
Additions additions_of(const Catalog& catalog, const Service& service);

/// True when one of these stands among `words`: "--flag" or "--flag=VALUE"; "--a_b" counts as "--a-b", as the engines
/// read it.
using OptionNames = std::initializer_list<std::string_view>;
bool has_option(const std::vector<std::string>& words, OptionNames names);
/// What the last of them says: "--flag VALUE" or "--flag=VALUE". Nothing when none is there, or nothing follows it.
std::optional<std::string> option_value(const std::vector<std::string>& words, OptionNames names);

}  // namespace gpumod
