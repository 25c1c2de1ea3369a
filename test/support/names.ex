defmodule Support.Names do
  @moduledoc "Processes of a node that have names, and what they were told. Runs on that node."

  @doc "Starts a process for each name and registers it; answers `{name, pid, answer}` in the order of the names."
  def register(cluster, names, options \\ []) do
    recorder = recorder()

    for name <- names do
      pid = spawn(fn -> hold(recorder) end)
      {name, pid, Tiebeam.Registry.register(cluster, name, pid, node(), options)}
    end
  end

  @doc "What the processes were told, as `{pid, event}`, in order."
  def told do
    send(recorder(), {:told, self()})

    receive do
      {:told, events} -> events
    end
  end

  def alive(pids), do: Enum.filter(pids, &Process.alive?/1)

  @doc "The processes of the names as this node sees them."
  def view(cluster, names), do: for(name <- names, do: Tiebeam.Registry.whereis(cluster, name))

  @doc "Whose the name shall be, for `:resolve`: the process on the node whose name comes last."
  def last_node(_scope, _name, {one, _}, {other, _}), do: Enum.max_by([one, other], &node/1)

  def neither(_scope, _name, _one, _other), do: nil

  defp hold(recorder) do
    receive do
      {:tiebeam, _cluster, event} -> send(recorder, {:event, self(), event})
    end

    hold(recorder)
  end

  defp recorder do
    case Process.whereis(__MODULE__) do
      nil ->
        pid = spawn(fn -> record([]) end)
        Process.register(pid, __MODULE__)
        pid

      pid ->
        pid
    end
  end

  defp record(events) do
    receive do
      {:event, pid, event} ->
        record([{pid, event} | events])

      {:told, asker} ->
        send(asker, {:told, Enum.reverse(events)})
        record(events)
    end
  end
end
