from mailserver.auth.plugins import AuthBackendMaker

json_users = AuthBackendMaker("json", "mailserver_json_users", "path of a JSON file, name -> password entry")
