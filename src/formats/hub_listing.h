// What the Hugging Face Hub says of a repository: the answer to GET /api/models/ID/revision/REVISION?blobs=true.
//
// {"id", "sha": the commit, "siblings": [{"rfilename", "size", "lfs": {"sha256", "size"}}], "config": {"architectures",
// "model_type"}, "safetensors": {"parameters": {"BF16": n}, "total": n}, "gated": false or "auto" or "manual", …}. It
// comes from strangers: names must stay inside the repository, numbers inside what can be counted.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/units.h"
#include "formats/model_facts.h"

namespace gpumod {

struct HubFile {
  std::string name;           ///< relative to the repository, printable, with '/' between folders
  std::optional<Bytes> size;  ///< unset: it was not said
  std::string sha256;         ///< of large files: 64 hexadecimal digits; "" otherwise
};

struct HubRepository {
  std::string id;
  std::string revision;  ///< the commit that was looked at
  bool gated = false;    ///< people must agree to terms first
  std::vector<HubFile> files;
  std::string architecture;                         ///< the configuration's model_type
  std::string model_class;                          ///< the first of its "architectures"
  std::map<std::string, std::uint64_t> parameters;  ///< of safetensors, by type
  bool more_files = false;                          ///< there are more than are read here

  const HubFile* find(std::string_view name) const;
};

/// `name` is for messages. Errors: configuration when it is no such answer.
Result<HubRepository> read_hub_listing(std::string_view name, std::string_view body);

/// The GGUF models of a repository: of a series its first part. Projectors are no models of their own.
std::vector<std::string> gguf_models_of(const HubRepository& repository);

/// What belongs to the model in that file (all parts, and the projectors beside it), or, for "", to the safetensors
/// model that is the whole repository: its weights and configurations.
std::vector<HubFile> files_of_hub_model(const HubRepository& repository, const std::string& file);

/// The facts of a safetensors model, from its configuration and the listing alone. `file` is for messages.
/// Errors: configuration, as facts_of_hf_config.
Result<ModelFacts> facts_of_hub_model(const HubRepository& repository, std::string_view file, std::string_view config);

}  // namespace gpumod
