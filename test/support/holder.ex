defmodule Support.Holder do
  @moduledoc "A process of a node that holds what the group grants, and keeps what it was told. Runs on that node."

  @doc "Starts one that asks by `module.function(cluster | arguments)`; answers it and what it was answered."
  def start(module, function, arguments) do
    caller = self()
    pid = spawn(fn -> hold(caller, apply(module, function, arguments)) end)

    receive do
      {^pid, answer} -> {pid, answer}
    end
  end

  @doc "What it was told, in order."
  def told(pid) do
    send(pid, {:told, self()})

    receive do
      {:told, ^pid, events} -> events
    end
  end

  defp hold(caller, answer) do
    send(caller, {self(), answer})
    keep([])
  end

  defp keep(events) do
    receive do
      {:tiebeam, _cluster, event} ->
        keep([event | events])

      {:told, asker} ->
        send(asker, {:told, self(), Enum.reverse(events)})
        keep(events)
    end
  end
end
