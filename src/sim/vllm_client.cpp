#include "sim/vllm_client.h"

namespace gpumod::sim {

namespace json = boost::json;

EngineClient::Call::Call(EngineClient& client, json::object message)
    : client_(client), id_(client.next_id_++), news_(client.loop_) {
  client_.calls_[id_] = this;
  message["id"] = id_;
  client_.link_.send(message);
}

EngineClient::Call::~Call() {
  client_.calls_.erase(id_);
  if (over_ || client_.dead_) return;
  json::object abort;
  abort["op"] = "abort";
  abort["id"] = id_;
  client_.link_.send(abort);
}

Task<std::optional<json::object>> EngineClient::Call::next() {
  while (arrived_.empty() && !client_.dead_) {
    news_.reset();
    (void)co_await news_.wait();
  }
  if (arrived_.empty()) co_return std::nullopt;
  auto message = std::move(arrived_.front());
  arrived_.pop_front();
  co_return message;
}

void EngineClient::deliver(json::object message) {
  const auto found = calls_.find(message.at("id").to_number<std::int64_t>());
  if (found == calls_.end()) return;
  auto& call = *found->second;
  call.over_ = !message.contains("text");
  call.arrived_.push_back(std::move(message));
  call.news_.set();
}

void EngineClient::set_dead() {
  dead_ = true;
  for (auto& [id, call] : calls_)
    call->news_.set();
}

}  // namespace gpumod::sim
