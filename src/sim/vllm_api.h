// The simulated vLLM's HTTP side: which request becomes which question to the engine, and how the answers look. Shapes,
// codes and error bodies are the real server's, as far as a client can tell.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "sim/http_server.h"
#include "sim/vllm_client.h"
#include "sim/vllm_command.h"
#include "sim/vllm_log.h"
#include "sim/vllm_options.h"

namespace gpumod::sim {

class VllmApi {
 public:
  /// `on_dead_engine` is called when a request found the engine dead.
  VllmApi(const VllmCommand& command, const VllmBehaviour& options, EngineClient& engine, const VllmLog& log,
          std::function<void()> on_dead_engine);

  Task<ServerReply> handle(ServerRequest request);

 private:
  using Body = boost::json::object;
  struct Question {
    std::string id;
    bool chat = false;
    bool usage_in_stream = false;
    std::int64_t created = 0;
  };

  Task<ServerReply> route(ServerRequest request);
  Task<ServerReply> generate(ServerRequest request, bool chat);
  Task<ServerReply> whole_answer(std::shared_ptr<EngineClient::Call> call, Question question);
  Task<void> stream_answer(std::shared_ptr<EngineClient::Call> call, Question question, ServerReply::Write write);
  Task<ServerReply> embeddings(ServerRequest request);
  Task<ServerReply> sleep(ServerRequest request);
  Task<ServerReply> wake_up(ServerRequest request);
  Task<ServerReply> is_sleeping();
  Task<ServerReply> collective_rpc(ServerRequest request);
  Task<ServerReply> utility(std::shared_ptr<EngineClient::Call> call, std::string name, ServerReply done);

  ServerReply models() const;
  ServerReply metrics() const;
  ServerReply tokenize(const ServerRequest& request) const;
  ServerReply dead_engine();
  std::optional<ServerReply> refuse_model(const Body& body) const;
  bool pools() const;
  bool authorized(const ServerRequest& request) const;
  std::vector<std::string> served_names() const;
  boost::json::object usage(const Body& finish);

  const VllmCommand& command_;
  const VllmBehaviour& options_;
  EngineClient& engine_;
  const VllmLog& log_;
  std::function<void()> on_dead_engine_;
  bool development_ = false;
  std::int64_t running_ = 0;
  std::int64_t prompt_tokens_ = 0;
  std::int64_t generated_tokens_ = 0;
  std::map<std::string, std::int64_t> finished_;  ///< by reason
};

}  // namespace gpumod::sim
