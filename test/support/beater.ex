defmodule Support.Beater do
  @moduledoc """
  A child that writes down that it runs: a line in a file for each beat, with its token, its node and the system's time. The file
  is that of all nodes, and has what a node wrote before it was killed.
  """

  @pause 2

  @doc "A child specification of a singleton: see the option `:child` of `Tiebeam.Singleton`."
  def child(file, token), do: {Task, fn -> beat(file, token) end}

  @doc "Starts a singleton with such a child under a supervisor of OTP's own, on this node."
  def start_singleton(cluster, name, file) do
    options = [cluster: cluster, name: name, child: &child(file, &1), cooldown: 500]
    {:ok, _} = :supervisor.start_child(:kernel_safe_sup, Tiebeam.Singleton.child_spec(options))
    :ok
  end

  @doc "Stops it in good order."
  def stop_singleton(cluster, name) do
    :supervisor.terminate_child(:kernel_safe_sup, {Tiebeam.Singleton, cluster, name})
  end

  @doc "All beats, as `{time, token, node}` in microseconds, in the order of the file."
  def beats(file) do
    for line <- file |> File.read!() |> String.split("\n", trim: true) do
      [time, token, node] = String.split(line, " ")
      {String.to_integer(time), String.to_integer(token), node}
    end
  end

  defp beat(file, token) do
    # One write of a few bytes at the end of the file is not torn.
    File.write!(file, "#{System.os_time(:microsecond)} #{token} #{node()}\n", [:append])
    Process.sleep(@pause)
    beat(file, token)
  end
end
