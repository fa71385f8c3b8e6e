// Which files belong to a model, and which of them are not there. Nothing is read of weights; of a Hugging Face folder
// its index is, because only that says which shards there must be.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"

namespace gpumod {

/// gguf: one file or a series. safetensors: a folder with a config.json. local: any other file or folder.
enum class ModelLayout { gguf, safetensors, local };
std::string_view to_string(ModelLayout layout);

struct ModelFile {
  enum class Role { weights, projector, configuration };
  std::filesystem::path path;
  Role role = Role::weights;
  std::optional<Bytes> size;             ///< unset when it is not there
  std::optional<std::int64_t> modified;  ///< seconds since 1970
  std::string problem;  ///< "" or why it cannot be used: "is not there", "is a link that leads nowhere", …
  /// Servers cannot do without it. They can without a projector, and without most of the files beside the weights.
  bool needed = true;
};
std::string_view to_string(ModelFile::Role role);

struct ModelFiles {
  ModelLayout layout = ModelLayout::local;
  std::vector<ModelFile> files;
  Bytes bytes() const;  ///< of what is there
  /// "PATH is not there", one for each file with a problem.
  std::vector<std::string> problems() const;
  /// The same of those alone that are needed.
  std::vector<std::string> obstacles() const;
};

/// The file itself, as it is now.
ModelFile look_at_model_file(const std::filesystem::path& path, ModelFile::Role role = ModelFile::Role::weights);

/// `path`: a GGUF file (any part of a series), a folder, a configuration inside it, or what people call a model. What
/// is not there is in the answer, with its problem: this never fails.
ModelFiles files_of_model(const std::filesystem::path& path);

/// The projectors (mmproj) among `names`, GGUF files of one folder, that belong to the model file `model`: those named
/// after it, and those that name no model. A folder with one model alone has no other owner for any of them.
std::vector<std::string> projectors_of(const std::string& model, const std::vector<std::string>& names);
bool is_gguf_name(std::string_view file_name);
bool is_projector_name(std::string_view file_name);

/// What people would call it: a series without its numbers, a file without .gguf, a folder by its name, a snapshot in
/// the hub's cache by its repository ("Qwen/Qwen3-8B").
std::string model_title(const std::filesystem::path& path);

}  // namespace gpumod
