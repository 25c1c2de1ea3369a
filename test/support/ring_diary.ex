defmodule Support.RingDiary do
  @moduledoc """
  A handler of rings that writes down what it is told: a line in a file for each partition that is owned or released. The file is
  that of all nodes. A test may also have it told to a process.
  """
  use Tiebeam.Ring

  @doc "Starts a ring with it under a supervisor of OTP's own, on this node."
  def start_ring(options) do
    {:ok, _} = :supervisor.start_child(:kernel_safe_sup, Tiebeam.Ring.child_spec(options))
    :ok
  end

  @doc "Stops it in good order."
  def stop_ring(cluster, name) do
    :ok = :supervisor.terminate_child(:kernel_safe_sup, {Tiebeam.Ring, cluster, name})
  end

  @impl true
  def on_own(partition, token, to) do
    write(to, {:own, partition, token, nil})
    {:ok, {to, token, %{}}}
  end

  @impl true
  def on_release(_partition, :drain, {_to, _token, %{"hang" => true}}), do: Process.sleep(:infinity)

  def on_release(partition, reason, {to, token, _map}) do
    write(to, {:release, partition, token, reason})
  end

  @impl true
  def handle_call(partition, key, {:put, value}, {to, token, map}),
    do: {:reply, {:put, partition, node()}, {to, token, Map.put(map, key, value)}}

  def handle_call(_partition, key, :get, {_to, _token, map} = state), do: {:reply, map[key], state}
  def handle_call(_partition, _key, :token, {_to, token, _map} = state), do: {:reply, token, state}
  def handle_call(_partition, _key, :fail, _state), do: raise("on purpose")
  def handle_call(_partition, _key, :hang, _state), do: Process.sleep(:infinity)

  @impl true
  def handle_cast(_partition, key, value, {to, token, map}),
    do: {:noreply, {to, token, Map.put(map, key, value)}}

  defp write(to, event) when is_pid(to), do: send(to, event)

  defp write(file, {what, partition, token, reason}) do
    line = "#{System.os_time(:microsecond)} #{what} #{partition} #{token} #{reason || "-"} #{node()}\n"
    # One write of a few bytes at the end of the file is not torn.
    File.write!(file, line, [:append])
  end

  @doc "All lines, as `{time, :own | :release, partition, token, reason, node}`, in the order of the file."
  def read(file) do
    for line <- file |> File.read!() |> String.split("\n", trim: true) do
      [time, what, partition, token, reason, node] = String.split(line, " ")

      {String.to_integer(time), String.to_existing_atom(what), String.to_integer(partition),
       String.to_integer(token), reason, node}
    end
  end
end
