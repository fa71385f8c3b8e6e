// Looking around on a machine for what a first configuration could be made of: inference servers, models, units that
// people already run. It reads, and asks a few programs for their version; it changes nothing.
//
// Where to look is a value (Places), so that a test can look at a machine of its own.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/async.h"
#include "base/paths.h"
#include "base/units.h"
#include "formats/model_kind.h"
#include "verbs/unit_guess.h"
#include "verbs/walk.h"

namespace gpumod {

struct Places {
  std::filesystem::path home;
  std::string path;                                    ///< the PATH that services would be looked up in
  std::vector<WalkRoot> roots;                         ///< folders that are walked for models and programs
  std::vector<std::filesystem::path> program_folders;  ///< folders where programs lie, in order of preference
  std::vector<std::filesystem::path> environments;     ///< Python virtual environments
  std::filesystem::path llama_server;                  ///< people said where; a file, or a folder that holds it
  std::filesystem::path hub;                           ///< the Hugging Face hub's cache
  std::filesystem::path own_units;                     ///< where people's own user units are
  std::vector<std::filesystem::path> all_units;        ///< every folder of user units: their names are taken
  MountTable mounts;
  WalkLimits limits;
};

/// The usual ones. `model_folders` and `llama_server` as people gave them; `working_directory` absolute.
Places usual_places(const Paths& paths, const std::filesystem::path& working_directory,
                    const std::vector<std::string>& model_folders, const std::string& llama_server);

struct FoundEngine {
  EngineKind engine = EngineKind::llamacpp;
  std::filesystem::path binary;
  std::string version;   ///< "" when it does not say
  bool in_path = false;  ///< services find it without being told
  std::string problem;   ///< it does not run: its own words
};

struct FoundModel {
  std::filesystem::path path;  ///< the first part of a split one
  Bytes size;                  ///< of all parts
  ModelGuess guess;
  std::optional<std::int64_t> context;  ///< what it was trained with, in tokens
};

struct FoundHubModel {
  std::string id;
  std::filesystem::path snapshot;
  ModelKind kind = ModelKind::unusable;  ///< unusable: no model of language
  std::optional<std::int64_t> context;
};

struct FoundUnit {
  std::string name;
  std::filesystem::path path;
  UnitGuess guess;
};

struct Findings {
  std::vector<FoundEngine> engines;  ///< of each kind the best first
  std::vector<FoundModel> models;    ///< by name
  std::vector<FoundHubModel> hub;
  std::vector<FoundUnit> units;
  std::set<std::string> unit_names;  ///< of every user unit
  std::vector<std::string> remarks;  ///< what was left out, and why
  std::vector<std::filesystem::path> searched;
  bool cut_short = false;

  const FoundEngine* engine(EngineKind kind) const;
};

/// What cannot be read is not there, but for what people named. Errors: not_found when llama-server or a folder of
/// models is not where they said; usage when such a folder is a file; environment when it may not be read.
Task<Result<Findings>> look_around(Places places);

}  // namespace gpumod
