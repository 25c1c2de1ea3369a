defmodule Tiebeam.Discovery.Epmd do
  @moduledoc """
  The nodes that epmd knows on given hosts, as OTP's `:net_adm.world/0` finds them.

      {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.Epmd, hosts: ["10.0.0.1", "10.0.0.2"], matching: "app*"}]}

  They are called `alive@host` with the host as it is given, so write it as it is in the names of nodes. epmd does not tell hidden
  nodes from visible ones: shells and tools are found as well, unless `:matching` says which names are meant. Its port is that
  of this node: `ERL_EPMD_PORT`, or 4369.

  ## Options

  - `:hosts` (a list of strings) - Required.
  - `:matching` (a string) - The name before the `@`, or, if it ends with `*`, how it begins. Default: `"*"`, all.

  And those of all: see `Tiebeam.Discovery`.
  """

  @behaviour Tiebeam.Discovery

  alias Tiebeam.Discovery
  alias Tiebeam.Discovery.Name

  # How long the epmd of one host may take; and how many are asked at a time.
  @answer_time 10_000
  @at_a_time 16

  @impl true
  def init(options) do
    Discovery.options!(__MODULE__, options, [
      {:hosts, nil, &hosts?/1, "a list of hosts"},
      {:matching, "*", &is_binary/1, "a string"}
    ])
  end

  @impl true
  def find(%{hosts: hosts, matching: pattern} = state) do
    answers =
      Task.async_stream(hosts, &:net_adm.names(to_charlist(&1)),
        timeout: @answer_time,
        on_timeout: :kill_task,
        max_concurrency: @at_a_time
      )

    answers = Enum.zip(hosts, answers)

    names =
      for {host, {:ok, {:ok, entries}}} <- answers, {alive, _port} <- entries, alive = to_string(alive) do
        if Name.matches?(pattern, alive), do: [Name.at_host(alive, host)], else: []
      end

    names = Enum.concat(names)

    case for({host, answer} <- answers, not match?({:ok, {:ok, _}}, answer), do: {host, reason(answer)}) do
      [] -> {:ok, names, state}
      # A host that is down hides its nodes, no others.
      _failed when names != [] -> {:some, names, state}
      failed -> {:error, {:no_epmd, failed}, state}
    end
  end

  defp reason({:ok, {:error, reason}}), do: reason
  defp reason({:exit, reason}), do: reason

  defp hosts?(hosts), do: is_list(hosts) and Enum.all?(hosts, &is_binary/1)
end
