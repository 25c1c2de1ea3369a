defmodule Tiebeam.Discovery.ErlangHosts do
  @moduledoc """
  The nodes that epmd knows on the hosts in a file `.hosts.erlang`, as OTP's `:net_adm.world/0` and libcluster's
  `Cluster.Strategy.ErlangHosts` find them.

      {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.ErlangHosts, matching: "app*"}]}

  The file has a host per line, as an Erlang term with a dot behind it, written as it is in the names of nodes. It is read at each
  look, so that hosts can be added while nodes run.

      'h1.example.org'.
      'h2.example.org'.

  Rust nodes read the same file (`tiebeam node --discover hosts`). See `Tiebeam.Discovery.Epmd` for what is found on a host.

  ## Options

  - `:path` (a string) - The file. Default: where `:net_adm.host_file/0` finds it: in the current directory, the home directory of
    the user, or the root directory of OTP.
  - `:matching` (a string) - The name before the `@`, or, if it ends with `*`, how it begins. Default: `"*"`, all.

  And those of all: see `Tiebeam.Discovery`.
  """

  @behaviour Tiebeam.Discovery

  alias Tiebeam.Discovery
  alias Tiebeam.Discovery.Epmd

  @impl true
  def init(options) do
    Discovery.options!(__MODULE__, options, [
      {:path, nil, &(&1 == nil or is_binary(&1)), "a path"},
      {:matching, "*", &is_binary/1, "a string"}
    ])
  end

  @impl true
  def find(state) do
    case read(state.path) do
      {:ok, []} ->
        {:ok, [], state}

      {:ok, terms} ->
        {answer, found, _epmd} = Epmd.find(%{hosts: hosts(terms), matching: state.matching})
        {answer, found, state}

      {:error, reason} ->
        {:error, {state.path || ".hosts.erlang", reason}, state}
    end
  end

  defp read(nil) do
    with terms when is_list(terms) <- :net_adm.host_file(), do: {:ok, terms}
  end

  defp read(path), do: :file.consult(path)

  @doc """
  The hosts in the terms of such a file. What is no host is passed over.

      iex> Tiebeam.Discovery.ErlangHosts.hosts([:"h1.example.org", 'h2.example.org', "h3", 5, :h1])
      ["h1.example.org", "h2.example.org", "h3", "h1"]
  """
  @spec hosts([term]) :: [String.t()]
  def hosts(terms) do
    for term <- terms, host = host(term), host != "", do: host
  end

  defp host(term) when is_atom(term), do: Atom.to_string(term)
  defp host(term) when is_binary(term), do: term
  defp host(term) when is_list(term), do: if(List.ascii_printable?(term), do: to_string(term))
  defp host(_other), do: nil
end
