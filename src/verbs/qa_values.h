// Reading what quality runs have kept, without trusting it: a file may be of another gpumod, or edited.
#pragma once

#include <boost/json.hpp>

#include "engines/reply.h"

namespace gpumod {

/// Its elements; none where there is no array.
inline const boost::json::array& list_at(const boost::json::value& root, std::initializer_list<JsonStep> path) {
  static const boost::json::array none;
  const auto* found = find(root, path);
  const auto* array = found ? found->if_array() : nullptr;
  return array ? *array : none;
}

/// Its members; none where there is no object.
inline const boost::json::object& members_at(const boost::json::value& root, std::initializer_list<JsonStep> path) {
  static const boost::json::object none;
  const auto* found = find(root, path);
  const auto* object = found ? found->if_object() : nullptr;
  return object ? *object : none;
}

/// An object would become a value that is gone before what was found in it is read.
const boost::json::array& list_at(const boost::json::object& root, std::initializer_list<JsonStep> path) = delete;
const boost::json::object& members_at(const boost::json::object& root, std::initializer_list<JsonStep> path) = delete;

inline bool true_at(const boost::json::value& root, std::initializer_list<JsonStep> path) {
  return bool_at(root, path).value_or(false);
}

}  // namespace gpumod
