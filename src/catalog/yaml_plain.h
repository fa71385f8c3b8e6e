// The few forms that nearly every file of people's is made of, read without yaml-cpp: block maps of plain keys, lists,
// plain and simply quoted scalars, lists in brackets on one line, comments. yaml-cpp matches every character against
// regular expressions built at run time, and reading twenty such files took it longer than all else that `status` does.
//
// It never decides that a file is wrong and never reads a form whose meaning takes a rule of YAML to know: at the first
// doubt it gives nothing, and yaml-cpp reads the file. What it gives is, node by node, what parse_yaml would have given
// without it; a test compares the two on thousands of random files.
#pragma once

#include <string_view>

#include "catalog/yaml_tree.h"

namespace gpumod {

/// Null: this file is for yaml-cpp. Otherwise the whole document, free of problems.
Yaml read_plain_yaml(std::string_view text);

}  // namespace gpumod
