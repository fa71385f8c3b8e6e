// What is known of services beyond their files: their footprints, and their models' headers. For whoever thinks about
// memory before anything runs.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "catalog/catalog.h"
#include "fit/alternatives.h"
#include "switching/plan.h"
#include "verbs/context.h"

namespace gpumod {

/// `subjects` point into `knowledge` and `models`: it is not copied.
struct Subjects {
  Knowledge knowledge;  ///< as a switch has it
  std::vector<Subject> subjects;
  std::map<ServiceId, std::string> unread;  ///< why a service's model could not be read, in words
  std::deque<ModelFacts> models;

  Subjects() = default;
  Subjects(const Subjects&) = delete;
  Subjects& operator=(const Subjects&) = delete;
};

/// Asks what is known of these services, and reads the headers of their models, off the loop's thread. A model that cannot
/// be read is no error: then less is known.
Task<void> read_subjects(Context& context, const Catalog& catalog, std::vector<ServiceId> ids, Subjects& out);

/// Fills in the same models in other quantizations that lie in the same folders, where there are any.
Task<void> read_other_quantizations(Subjects& subjects);

}  // namespace gpumod
